// The page over the real gateway: what a person sees on a first run. The program is taken from BULKHEAD_BIN_DIR.
// BULKHEAD_SCREENSHOTS names a folder for the pictures of the README.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { access, appendFile, chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { findChromium, openPage, startBrowser } from './browser.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const bin = process.env.BULKHEAD_BIN_DIR && path.join(process.env.BULKHEAD_BIN_DIR, 'gateway');
const shots = process.env.BULKHEAD_SCREENSHOTS;
const skip = bin ? false : 'BULKHEAD_BIN_DIR does not say where the gateway is';
if (skip) console.log(`SKIP page over the real gateway: ${skip}`);

const children = [];
let folder, browser, at;
/** Null, or why the tests of the probe cannot run. */
let noProbe = 'the gateway was not started';

/** Starts a child that is ended by pid afterwards. */
function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], ...options });
  children.push(child);
  return child;
}

/** The first line of `child`'s output that matches. */
async function line(child, pattern) {
  for await (const text of createInterface({ input: child.stdout })) {
    const found = text.match(pattern);
    if (found) return found;
  }
  throw new Error(`ended without printing ${pattern}`);
}

/** Addresses out of the lines that a start prints. */
async function addresses(child) {
  const found = {};
  for await (const text of createInterface({ input: child.stdout })) {
    const page = text.match(/page\s+(http\S+)/);
    const otlp = text.match(/OTLP\s+grpc (\S+)\s+http (\S+)/);
    if (page) found.page = page[1];
    if (otlp) [, found.grpc, found.http] = otlp;
    if (/demo --endpoint/.test(text)) return found;
  }
  throw new Error('the gateway ended before it was ready');
}

before(async () => {
  if (skip) return;
  // Not the temporary folder: the log refuses a file system in memory, which that often is.
  folder = await mkdtemp('/var/tmp/bulkhead-');
  noProbe = await startProbe();
  const gateway = start(bin, ['--storage', folder, '--http', '127.0.0.1:0', '--otlp-grpc', '127.0.0.1:0', '--otlp-http', '127.0.0.1:0'], { env: { ...process.env, BULKHEAD_PROBE_SOCKET: path.join(folder, 'door', 'probe.sock') } });
  at = await addresses(gateway);
  await line(start(bin, ['demo', '--endpoint', `http://${at.http}`]), /calls of the last two minutes sent/);
  const python = path.join(root, 'target/tools/venv/bin/python');
  if (await access(python).then(() => true, () => false)) {
    const sender = start(python, [path.join(root, 'unprivileged-gateway/tests/senders/python/send.py'), 'http', `http://${at.http}`, '25']);
    sender.stdout.resume();
    await new Promise((done) => sender.on('exit', done));
  } else {
    console.log('SKIP records of a real SDK on the page: target/tools/venv is not there yet (the scenes make it)');
  }
  browser = await startBrowser(await findChromium());
});

after(async () => {
  await browser?.close();
  for (const child of children) if (child.exitCode === null) child.kill('SIGTERM');
  await Promise.all(children.map((c) => c.exitCode === null && new Promise((done) => c.on('exit', done))));
  if (folder) await rm(folder, { recursive: true, force: true });
});

/** The probe beside the gateway, where there is one and we may; it leaves user 0, so its folders are open to others. */
async function startProbe() {
  const probe = path.join(process.env.BULKHEAD_BIN_DIR, 'probe');
  if (process.getuid() !== 0) return 'only root can start the probe: run the tests as root';
  if (!(await access(probe).then(() => true, () => false))) return `no probe at ${probe}: cargo build -p privileged-probe`;
  await chmod(folder, 0o755);
  for (const name of ['door', 'state', 'logs']) {
    await mkdir(path.join(folder, name));
    await chmod(path.join(folder, name), 0o777);
  }
  await appendFile(path.join(folder, 'logs', 'app.log'), 'first light of a file\n');
  const child = start(probe, ['--socket', path.join(folder, 'door', 'probe.sock'), '--state', path.join(folder, 'state'), '--files', `app=${folder}/logs/*.log`, '--peer-uid', '0'], { stdio: ['ignore', 'ignore', 'pipe'] });
  for await (const text of createInterface({ input: child.stderr })) {
    if (/ready/.test(text)) return null;
    if (/"ERROR"|\bERROR\b/.test(text)) return text;
  }
  return 'the probe ended before it was ready';
}

/** What a test needs of the probe and does not get is said, not passed over. */
function need(t, why) {
  if (why) {
    console.log(`skipped: ${t.name}: ${why}`);
    t.skip(why);
  }
  return !why;
}

async function visit(hash, look, name) {
  const { page, errors } = await openPage(browser.context);
  await page.goto(at.page);
  await page.goto(`${new URL(at.page).origin}/${hash}`);
  await look(page);
  if (shots && name) await page.screenshot({ path: path.join(shots, `${name}.png`) });
  assert.deepEqual(errors, [], 'no console error, no script error, no request off this machine');
  assert.deepEqual(await page.evaluate(() => globalThis.violations), [], 'no policy violation');
  await page.close();
}

test('the overview shows a ledger that adds up', { skip }, () =>
  visit('#/overview', async (page) => {
    const row = page.getByTestId('ledger-row').first();
    await row.waitFor();
    await page.waitForFunction(() => /[1-9]/.test(document.querySelector('[data-testid=ledger-row]')?.textContent ?? ''));
    assert.match(await row.textContent(), /yes/);
    // Two beats, so that the picture shows flow.
    if (shots) await page.waitForTimeout(12_000);
  }, 'overview'));

test('log lines of the shop arrive', { skip }, () =>
  visit('#/logs', async (page) => {
    await page.getByTestId('log-line').first().waitFor();
    await page.getByText(/charged in|checkout of order/).first().waitFor();
  }, 'logs'));

test('a trace opens as a waterfall', { skip }, () =>
  visit('#/traces', async (page) => {
    await page.getByTestId('trace-row').filter({ hasText: 'POST /checkout' }).first().click();
    await page.getByTestId('waterfall').waitFor();
    await page.getByText('payment.charge').first().waitFor();
  }, 'traces'));

test('the host and the gateway stand as charts, counted by nobody else', { skip }, () =>
  visit('#/metrics', async (page) => {
    const chart = (title) => page.locator('.mini', { has: page.getByRole('heading', { name: title, exact: true }) }).first();
    await page.getByRole('heading', { name: 'This host' }).waitFor();
    for (const title of ['CPU', 'Load', 'Memory', 'Accepted']) await chart(title).waitFor();
    // Rates need two scrapes, 15 s apart.
    await chart('CPU').locator('.legend').getByText('user').waitFor({ timeout: 60_000 });
    await chart('Memory').locator('.legend').getByText('available').waitFor();
    assert.match(await chart('Memory').locator('.v').innerText(), /iB$/);
  }, 'metrics'));

test('a series opens in full, with its labels to split by', { skip }, () =>
  visit('#/metrics?name=node_cpu_seconds_total', async (page) => {
    const full = page.getByTestId('metric-detail');
    await full.getByRole('combobox', { name: 'Split by' }).selectOption('mode');
    await full.locator('tbody tr', { hasText: 'idle' }).waitFor({ timeout: 60_000 });
  }, 'metric'));

test('commits and pushes of the gateway itself are traces', { skip }, () =>
  visit('#/traces?q=bulkhead', async (page) => {
    await page.getByTestId('trace-row').first().waitFor({ timeout: 60_000 });
    await page.getByTestId('waterfall').waitFor();
  }, 'traces-own'));

test('the overview names what feeds it beside OTLP', { skip }, () =>
  visit('#/overview', async (page) => {
    for (const title of ['This host', 'Journal']) await page.locator('.src', { hasText: title }).first().waitFor();
  }));

test('the probe says what the kernel left it, and its proofs hold', { skip }, (t) =>
  need(t, noProbe) &&
  visit('#/probe', async (page) => {
    await page.getByTestId('caps').first().waitFor();
    await page.getByTestId('proof').first().waitFor();
    assert.equal(await page.locator('[data-testid=proof] .st:not([data-state=ok])').count(), 0);
    assert.match(await page.locator('[data-testid=caps][data-name=effective]').innerText(), /SYS_PTRACE/);
    assert.equal(await page.getByText('SYS_ADMIN, ').count(), 0);
    await page.getByText('mode 2, filter').waitFor();
  }, 'probe'));

test('a line that the probe read from a file is on the page, with its file', { skip }, (t) =>
  need(t, noProbe) &&
  visit('#/logs?q=first%20light', async (page) => {
    await page.getByTestId('log-line').getByText('of a file').first().click();
    await page.getByTestId('log-details').getByText(/logs\/app\.log$/).waitFor();
  }));

test('programs of this machine stand in a flame graph', { skip }, async (t) => {
  if (!need(t, noProbe)) return;
  const { features } = await fetch(`${new URL(at.page).origin}/api/v1/probe`, { headers: { authorization: `Bearer ${new URL(at.page).searchParams.get('token')}` } }).then(async (r) => (await r.json()).hello);
  const off = features.find((f) => f.name === 'cpu' && !f.on);
  if (off) {
    // Then the page must say so, in the words of the probe.
    await visit('#/profiles', (page) => page.getByTestId('no-cpu').getByText(off.reason).waitFor());
    return void need(t, `the probe does not sample: ${off.reason}`);
  }
  await visit('#/profiles', async (page) => {
    // A window is 15 s.
    await page.getByTestId('function-row').first().waitFor({ timeout: 60_000 });
    assert.ok(Number(await page.getByTestId('flamegraph').getAttribute('data-drawn')) > 10);
    assert.ok((await page.getByTestId('process').count()) > 2);
  }, 'profiles');
});

test('the configuration in force is shown with the layer of each value', { skip }, () =>
  visit('#/config', async (page) => {
    await page.getByTestId('config').waitFor();
    await page.locator('.cfg .ln', { hasText: 'scrape' }).first().waitFor();
    assert.doesNotMatch(await page.locator('main').innerText(), new RegExp(new URL(at.page).searchParams.get('token')));
  }, 'config'));
