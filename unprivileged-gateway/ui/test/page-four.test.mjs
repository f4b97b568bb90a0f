// Profiles, Metrics and Probe in a real browser against the mock, also with hostile content and very many nodes.
import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { MARKUP } from '../mock/four.mjs';
import { Mock } from '../mock/server.mjs';
import { findChromium, openPage, startBrowser } from './browser.mjs';

let browser;
before(async () => (browser = await startBrowser(await findChromium())));
after(() => browser?.close());

async function on(scenario, route, options, run) {
  const mock = await new Mock({ scenario, auto: false }).listen();
  const { page, errors } = await openPage(browser.context, options);
  try {
    await page.goto(`${mock.url}/#/${route}`);
    await run(page, mock);
    assert.deepEqual(errors, []);
    assert.deepEqual(await page.evaluate(() => globalThis.violations), []);
  } finally {
    await page.close();
    await mock.close();
  }
}

async function until(what, condition) {
  const end = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise((go) => setTimeout(go, 20));
  }
}

const id = (name) => `[data-testid=${name}]`;
const ready = (page) => page.locator(id('function-row')).first().waitFor();
/** The colours of a row of the graph, from left to right, each named once. */
const drawn = (page) => page.locator(id('flamegraph')).getAttribute('data-drawn').then(Number);
const plain = (text) => text.replaceAll('\u2009', ' ');

test('a flame graph is drawn, says what it covers, how much is truncated and why', () =>
  on('well', 'profiles', {}, async (page) => {
    await ready(page);
    assert.ok((await drawn(page)) > 30);
    assert.match(plain(await page.locator(id('covers')).innerText()), /^\d\d:\d\d:\d\d to \d\d:\d\d:\d\d, 85 000 samples, 14 m 36 s of CPU$/);
    assert.match(plain(await page.locator(id('truncated')).innerText()), /^7\.0 % of samples are truncated: no row for this address 4\.9 %, table not there yet 2\.1 %$/);
    for (const word of ['program', 'kernel', 'Python', 'truncated']) await page.locator('.under .legend').getByText(word, { exact: true }).waitFor();
  }));

test('a click zooms, the crumbs lead back, and the keyboard does the same', () =>
  on('well', 'profiles', {}, async (page) => {
    await ready(page);
    const graph = page.locator(id('flamegraph'));
    await graph.click({ position: { x: 300, y: 90 } });
    const crumbs = page.getByRole('navigation', { name: 'Zoomed to' });
    await crumbs.getByText('catalog_api::main').waitFor();
    const zoomed = await drawn(page);
    await crumbs.getByRole('button', { name: 'all', exact: true }).click();
    await until('the graph is whole again', async () => !(await crumbs.isVisible()) && (await drawn(page)) > zoomed);
    await graph.focus();
    for (const key of ['ArrowDown', 'ArrowDown', 'ArrowDown', 'ArrowDown', 'ArrowRight', 'Enter']) await page.keyboard.press(key);
    await crumbs.getByText('Py_BytesMain').waitFor();
    await page.keyboard.press('Escape');
    await crumbs.waitFor({ state: 'hidden' });
  }));

test('the walk is spoken: name, origin, share, callees', () =>
  on('well', 'profiles', {}, async (page) => {
    await ready(page);
    await page.locator(id('flamegraph')).focus();
    await page.keyboard.press('ArrowDown');
    await page.waitForFunction(() => [...document.querySelectorAll('[aria-live=polite]')].some((el) => /^_start, program, 8\d\.\d.% of samples, self 0\.0.%, 1 callees$/.test(el.textContent ?? '')));
  }));

test('a tooltip tells self and total in samples, time and share', () =>
  on('well', 'profiles', {}, async (page) => {
    await ready(page);
    await page.locator(id('flamegraph')).hover({ position: { x: 300, y: 30 } });
    const tip = page.locator('.tip');
    await tip.getByText('_start').waitFor();
    assert.match(plain(await tip.innerText()), /total\n8\d\.\d\d %, [\d ]+ samples, 1\d m \d\d s of CPU\nself\n0\.00 %, 0 samples, 0 s of CPU/);
  }));

test('a search tells the matched share, each sample once, and narrows the table', () =>
  on('well', 'profiles', {}, async (page) => {
    await ready(page);
    await page.keyboard.press('f');
    await page.keyboard.type('postings::');
    // 9,000 + 7,000 + 6,900 of 85,000 samples.
    await page.locator(id('match-share')).getByText(/26\.9.% of samples match/).waitFor();
    await until('two functions', async () => (await page.locator(id('function-row')).count()) === 2);
    assert.match(page.url(), /q=postings/);
  }));

test('callers of a function that is reached on two ways show both, with their share', () =>
  on('well', 'profiles', {}, async (page) => {
    await ready(page);
    await page.getByRole('button', { name: 'postings::decode', exact: true }).click();
    assert.equal(await page.getByRole('button', { name: 'Callers' }).getAttribute('aria-pressed'), 'true');
    const by = page.getByRole('table', { name: 'Called by' });
    assert.deepEqual((await by.locator('tbody tr').allInnerTexts()).map((t) => plain(t).split(/\t/)), [['query::execute', '50.4 %', '7 000'], ['cache::fill', '49.6 %', '6 900']]);
    await by.getByRole('button', { name: 'cache::fill' }).click();
    await page.locator('.ftable h2').getByText('cache::fill').waitFor();
    await page.getByRole('button', { name: 'Callees' }).click();
    assert.deepEqual((await page.getByRole('table', { name: 'Calls', exact: true }).locator('tbody tr').allInnerTexts()).map((t) => t.split(/\t/)[0]), ['postings::decode']);
  }));

test('a process is picked by its service and its number, and the address keeps it', () =>
  on('well', 'profiles', {}, async (page, mock) => {
    await ready(page);
    await page.locator(`${id('process')}[data-key="ebpf/python3"]`).click();
    await until('python only', async () => /26.?100 samples/.test(plain(await page.locator(id('covers')).innerText())));
    await page.locator(`${id('process')}[data-key="ebpf/python3 5211"]`).click();
    await until('asked by number', () => mock.requests.some((r) => r.includes('/profile') && r.includes('pid=5211') && r.includes('service=ebpf%2Fpython3')));
    assert.match(page.url(), /service=ebpf%2Fpython3&pid=5211/);
  }));

test('a brush over the cores in use asks for that time only, and is cleared', () =>
  on('well', 'profiles', {}, async (page, mock) => {
    await ready(page);
    const before = await page.locator(id('covers')).innerText();
    const box = await page.locator('.hist canvas').boundingBox();
    await page.mouse.move(box.x + box.width * 0.5, box.y + 20);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.7, box.y + 20, { steps: 4 });
    await page.mouse.up();
    await page.getByRole('button', { name: 'Whole window' }).waitFor();
    const asked = mock.requests.filter((r) => r.startsWith('/api/v1/profile?')).at(-1);
    const range = new URLSearchParams(asked.split('?')[1]);
    assert.ok(Math.abs(Number(range.get('to_ms')) - Number(range.get('from_ms')) - 180_000) < 30_000, asked);
    assert.notEqual(await page.locator(id('covers')).innerText(), before);
    await page.getByRole('button', { name: 'Whole window' }).click();
    await page.getByRole('button', { name: 'Whole window' }).waitFor({ state: 'detached' });
  }));

test('without a probe Profiles says why, with the words of the gateway, and fills by itself', () =>
  on('noprobe', 'profiles', {}, async (page, mock) => {
    await page.locator(id('no-probe')).getByText('No probe answers on /run/bulkhead/probe.sock.').waitFor();
    await page.locator(id('no-probe')).getByText('no such file; start the probe').waitFor();
    mock.become('well');
    await ready(page);
  }));

test('names out of programs are text: markup stays text, nothing turns the reading direction, nothing breaks', () =>
  on('hostile', 'profiles', { width: 360, height: 780 }, async (page) => {
    await ready(page);
    assert.equal(await page.locator('main img').count(), 0);
    const names = await page.locator(`${id('function-row')} button`).allInnerTexts();
    assert.ok(names.includes(MARKUP), 'markup is shown as it is');
    assert.ok(names.every((n) => !/[\u202a-\u202e\u2066-\u2069\0\n]/.test(n)), 'no control character is shown');
    const wide = await page.evaluate(() => document.querySelector('main').scrollWidth - document.querySelector('main').clientWidth);
    assert.ok(wide <= 0, `${wide} px too wide`);
    await page.locator(id('flamegraph')).click({ position: { x: 60, y: 30 } });
    await page.getByRole('navigation', { name: 'Zoomed to' }).getByText(MARKUP).waitFor();
    assert.equal(await page.locator('main img').count(), 0);
  }));

test('fifty thousand nodes are drawn as what can be seen, within a frame or two', () =>
  on('huge', 'profiles', {}, async (page) => {
    await ready(page);
    const boxes = await drawn(page);
    assert.ok(boxes > 500 && boxes < 10_000, `${boxes} boxes`);
    await page.locator(id('covers')).getByText(/1.?234 small frames left out/).waitFor();
    // The middle of many drawings, so that one pause of a busy machine decides nothing.
    const ms = await page.evaluate(async () => {
      const canvas = document.querySelector('[data-testid=flamegraph]');
      const box = canvas.getBoundingClientRect();
      const times = [];
      for (let i = 0; i < 41; i++) {
        const begun = performance.now();
        canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + 20 + i * 17, clientY: box.top + 30 + (i % 3) * 20, bubbles: true }));
        times.push(performance.now() - begun);
        await new Promise(requestAnimationFrame);
      }
      return times.sort((a, b) => a - b)[20];
    });
    console.log(`a drawing of ${boxes} of 50,000 nodes takes ${ms.toFixed(1)} ms`);
    assert.ok(ms < 33, `${ms} ms`);
  }));

test('the host stands first: CPU by mode, memory, disk, network and pressure, with their units', () =>
  on('well', 'metrics', {}, async (page) => {
    const chart = (title) => page.locator('.mini', { has: page.getByRole('heading', { name: title, exact: true }) }).first();
    await chart('CPU').locator('.legend').getByText('user').waitFor();
    assert.equal(await chart('CPU').locator('.legend').getByText('idle').count(), 0, 'idle is the rest, not a use');
    await chart('Memory').locator('.legend').getByText('available').waitFor();
    assert.match(plain(await chart('Memory').locator('.v').innerText()), /^7\.6\d GiB$/);
    assert.match(plain(await chart('Network in').locator('.v').innerText()), /KiB\/s$/);
    for (const title of ['Pressure', 'Disk reads', 'Load']) await chart(title).waitFor();
    assert.match(await chart('CPU').locator('canvas').getAttribute('aria-label'), /^CPU, cores in use, by mode\. Now user 0\.\d+, system 0\.\d+$/);
  }));

test('counters are asked for as rates, gauges as they are, and buckets become quantiles', () =>
  on('well', 'metrics?q=bulkhead', {}, async (page, mock) => {
    const commit = page.locator('.mini', { hasText: 'bulkhead_wal_commit_seconds_bucket' });
    await commit.locator('.legend').getByText('p99').waitFor();
    assert.match(plain(await commit.locator('.v').innerText()), /^1\.00 ms$/, 'half of 180 calls are under the bound of the first bucket');
    const asked = (name) => mock.requests.find((r) => r.includes('query_range') && r.includes(name));
    assert.match(asked('bulkhead_accepted_records_total'), /rate=1/);
    assert.match(asked('bulkhead_waiting_bytes'), /rate=0/);
  }));

test('charts share one time axis and one crosshair', () =>
  on('well', 'metrics', {}, async (page) => {
    await page.locator('.mini .legend .dim').first().waitFor();
    const charts = page.locator('.mini canvas');
    const image = (i) => charts.nth(i).evaluate((c) => c.toDataURL());
    await until('drawn', async () => (await charts.nth(2).evaluate((c) => c.width)) > 0);
    const values = () => page.locator('.mini .v').allInnerTexts();
    const before = await values();
    const box = await charts.nth(0).boundingBox();
    const other = await image(2);
    await page.mouse.move(box.x + box.width * 0.4, box.y + 40);
    await until('the line under the pointer stands in another chart too', async () => (await image(2)) !== other);
    await until('values are those of that moment', async () => JSON.stringify(await values()) !== JSON.stringify(before));
  }));

test('a name opens in full, is split by a label and narrowed by another', () =>
  on('well', 'metrics', {}, async (page, mock) => {
    await page.locator('.pins').getByRole('button', { name: /^node_cpu_seconds_total/ }).click();
    const full = page.locator(id('metric-detail'));
    await full.locator('tbody tr').first().waitFor();
    assert.equal(await full.locator('tbody tr').count(), 8);
    await full.getByRole('combobox', { name: 'Split by' }).selectOption('mode');
    await until('one line a mode', async () => (await full.locator('tbody tr').count()) === 4);
    await full.getByRole('combobox', { name: 'cpu' }).selectOption('1');
    await until('narrowed', () => mock.requests.some((r) => decodeURIComponent(r.replaceAll('+', ' ')).includes('node_cpu_seconds_total{cpu="1"}')));
    assert.match(page.url(), /name=node_cpu_seconds_total/);
    await page.getByRole('button', { name: 'All names' }).click();
    await page.getByRole('heading', { name: 'This host' }).waitFor();
  }));

test('a search goes to the gateway, and an empty one says how to go on', () =>
  on('well', 'metrics', {}, async (page, mock) => {
    await page.locator('.mini').first().waitFor();
    await page.keyboard.press('f');
    await page.keyboard.type('zzz');
    await page.getByText('No series has this in its name or help.').waitFor();
    assert.ok(mock.requests.some((r) => r.startsWith('/api/v1/series?q=zzz')));
    await page.getByRole('button', { name: 'Clear the filter' }).click();
    await page.getByRole('heading', { name: 'This host' }).waitFor();
  }));

test('label values that are hostile are quoted in the question and are text on the page', () =>
  on('hostile', 'metrics?q=evil', {}, async (page, mock) => {
    await page.locator('.mini h3 button').click();
    const full = page.locator(id('metric-detail'));
    await full.locator('tbody tr').first().waitFor();
    assert.equal(await page.locator('main img').count(), 0);
    await full.getByRole('combobox', { name: 'path' }).selectOption('quote " and \\ back');
    await until('one series', async () => (await full.locator('tbody tr').count()) === 1);
    assert.ok(mock.requests.some((r) => new URLSearchParams(r.split('?')[1]).get('query')?.endsWith('{path="quote \\" and \\\\ back"}')));
  }));

test('the probe page shows rates, losses, ends, cost and the privileges that the kernel confirms', () =>
  on('well', 'probe', {}, async (page) => {
    assert.equal(await page.locator(id('cpu')).count().then(() => page.locator(id('cpu')).first().waitFor()).then(() => page.locator(id('cpu')).count()), 4);
    assert.match(plain(await page.locator(id('cpu')).first().innerText()), /^cpu 0\n\d\d \/s of 97/);
    assert.equal(await page.locator(id('end-row')).first().getAttribute('data-name'), 'complete');
    assert.match(plain(await page.locator(id('end-row')).first().innerText()), /95\.\d %/);
    const effective = page.locator(`${id('caps')}[data-name=effective]`);
    assert.match(await effective.innerText(), /0000000000080000\s+SYS_PTRACE/);
    assert.match(await page.locator(`${id('caps')}[data-name=permitted]`).innerText(), /DAC_READ_SEARCH, SYS_PTRACE/);
    await page.getByText('mode 2, filter').waitFor();
    assert.equal(await page.locator(`${id('proof')} .st[data-state=ok]`).count(), 3);
    await page.locator(`${id('feature')}[data-name=kernel_names]`).getByText('kernel.kptr_restrict is 2').waitFor();
    await page.getByText('0.83 % of one core'.replace(' %', '\u2009%')).waitFor();
    assert.equal(await page.locator('td.bad').count(), 0);
  }));

test('a loss is red, a proof that failed is red, a nursery that is gone is said', () =>
  on('hostile', 'probe', {}, async (page) => {
    await page.locator('td.bad').getByText('41').waitFor();
    await page.locator(id('proof')).getByText('allowed, which it should not be').waitFor();
    await page.getByText('gone: programs that start now get no table').waitFor();
    await page.getByText('not known: the kernel counts it only').waitFor();
    assert.equal(await page.locator('main img').count(), 0);
  }));

test('a probe that is not there, or not expected, says what to do, and appears by itself', () =>
  on('unexpected', 'probe', {}, async (page, mock) => {
    await page.locator(id('no-probe')).getByText('probe: { socket: /run/bulkhead/probe.sock }').waitFor();
    mock.become('noprobe');
    await page.locator(id('no-probe')).getByText('probe doctor').waitFor();
    mock.become('well');
    await page.locator(id('cpu')).first().waitFor();
  }));

test('the overview names every source, and lines of pods, files and the journal show where they come from', () =>
  on('well', 'overview', {}, async (page) => {
    for (const [title, via] of [['Journal', 'journalctl'], ['This host', 'kernel counters'], ['This gateway', 'its own numbers'], ['Probe', 'log files'], ['Probe', 'stacks']]) {
      await page.locator('.src', { hasText: title }).filter({ hasText: via }).waitFor();
    }
    await page.goto(page.url().replace('#/overview', '#/logs'));
    const rows = page.locator(id('log-line'));
    await rows.first().waitFor();
    const wanted = new Set(['filename', 'unit', 'stream']);
    for (let i = 0; i < 30 && wanted.size; i++) {
      await rows.nth(-2 - i).click();
      const text = await page.locator(id('log-details')).innerText();
      for (const label of wanted) if (text.includes(`${label}\n`)) wanted.delete(label);
      await rows.nth(-2 - i).click();
    }
    assert.deepEqual([...wanted], []);
  }));

test('a gateway that has just started is shown through the shortest window, an older one is not', async () => {
  for (const [age_ms, range] of [[20_000, '5 m'], [900_000, '15 m']]) {
    const mock = await new Mock({ scenario: 'well', auto: false }).listen();
    mock.scenario.started = Date.now() - age_ms;
    const { page } = await openPage(browser.context);
    try {
      await page.goto(`${mock.url}/#/overview`);
      await page.locator(id('ledger-row')).first().waitFor();
      assert.equal(await page.getByRole('button', { name: range, exact: true }).getAttribute('aria-pressed'), 'true');
    } finally {
      await page.close();
      await mock.close();
    }
  }
});
