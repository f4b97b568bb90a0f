// The page over the real gateway: what a person sees on a first run. The program is taken from BULKHEAD_BIN_DIR.
// BULKHEAD_SCREENSHOTS names a folder for the pictures of the README.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { access, mkdtemp, rm } from 'node:fs/promises';
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
  const gateway = start(bin, ['--storage', folder, '--http', '127.0.0.1:0', '--otlp-grpc', '127.0.0.1:0', '--otlp-http', '127.0.0.1:0']);
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
