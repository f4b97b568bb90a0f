// Every page in a real browser, against the mock of the API. Waits for what should happen, not for time to pass.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import test, { after, before } from 'node:test';
import { CSP, Mock } from '../mock/server.mjs';
import { findChromium, openPage, startBrowser } from './browser.mjs';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PAGES = ['overview', 'profiles', 'logs', 'traces', 'metrics', 'targets', 'cluster', 'probe', 'config'];
const READY = { overview: '[data-testid=ledger-row]', logs: '[data-testid=log-line]', traces: '[data-testid=waterfall]', config: '[data-testid=config]', metrics: '.mini .legend .dim', probe: '[data-testid=cpu]', profiles: '[data-testid=function-row]' };

let browser;
before(async () => (browser = await startBrowser(await findChromium())));
after(() => browser?.close());

/** Opens a route on a mock of its own; whatever happens, both are closed, and the page had no error of its own. */
async function on(scenario, route, options, run) {
  const mock = await new Mock({ scenario, auto: options.auto ?? false }).listen();
  const { page, errors } = await openPage(browser.context, options);
  try {
    await page.goto(`${mock.url}/#/${route}`);
    await run(page, mock);
    const allowed = options.expect ?? /^$/;
    assert.deepEqual(errors.filter((e) => !allowed.test(e)), []);
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

async function axe(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  return violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(' ')).slice(0, 3).join(', ')} (${v.help})`);
}

const tailing = (mock) => until('the tail is open', () => [...mock.streams].some((s) => s.tail));
const id = (name) => `[data-testid=${name}]`;
const number = (text) => Number(text.replace(/\u2009/g, ''));

for (const theme of ['dark', 'light']) {
  for (const width of [360, 1440]) {
    test(`every page is axe-core clean, quiet and within its width, ${theme}, ${width} px`, async () => {
      for (const name of PAGES) {
        await on('well', name, { theme, width }, async (page) => {
          await page.locator(READY[name] ?? id('later')).first().waitFor();
          assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), theme);
          assert.deepEqual(await axe(page), [], name);
          const wide = await page.evaluate(() => Math.max(document.documentElement.scrollWidth - innerWidth, document.querySelector('main').scrollWidth - document.querySelector('main').clientWidth));
          assert.ok(wide <= 0, `${name} is ${wide} px wider than the window`);
          assert.equal(await page.evaluate(() => document.getAnimations().length), 0, 'reduced motion: nothing runs');
          for (const canvas of await page.locator('canvas').all()) assert.ok((await canvas.getAttribute('aria-label')) || (await canvas.getAttribute('aria-hidden')) === 'true', `${name}: a canvas without a text twin`);
        });
      }
    });
  }
}

for (const [scenario, route, wait] of [
  ['first', 'overview', id('first-run')],
  ['down', 'overview', id('banner')],
  ['full', 'overview', id('banner')],
  ['off', 'logs', id('view-off')],
  ['first', 'logs', '.empty'],
  ['first', 'traces', '.empty'],
  ['first', 'metrics', id('no-metrics')],
  ['first', 'profiles', id('no-probe')],
  ['noprobe', 'profiles', id('no-probe')],
  ['noprobe', 'probe', id('no-probe')],
  ['unexpected', 'probe', id('no-probe')],
  ['off', 'metrics', id('view-off')],
  ['off', 'profiles', id('view-off')],
  ['hostile', 'profiles', id('function-row')],
  ['hostile', 'metrics', '.mini .legend .dim'],
  ['hostile', 'probe', id('cpu')],
  ['well', 'metrics?name=node_cpu_seconds_total', id('metric-detail')],
]) {
  test(`${route} in the scenario "${scenario}" is axe-core clean in both themes`, async () => {
    for (const theme of ['dark', 'light']) {
      await on(scenario, route, { theme }, async (page) => {
        await page.locator(wait).first().waitFor();
        assert.deepEqual(await axe(page), []);
      });
    }
  });
}

test('dialogs, an opened line and an empty search are axe-core clean in both themes', async () => {
  for (const theme of ['dark', 'light']) {
    await on('well', 'logs', { theme }, async (page) => {
      await page.locator(id('log-line')).first().waitFor();
      await page.locator(id('log-line')).last().click();
      await page.locator(id('log-details')).waitFor();
      assert.deepEqual(await axe(page), [], 'an opened line');
      await page.keyboard.press('/');
      await page.locator('#palette[open]').waitFor();
      assert.deepEqual(await axe(page), [], 'the palette');
      await page.keyboard.type('nothing has this name');
      assert.deepEqual(await axe(page), [], 'an empty palette');
      await page.keyboard.press('Escape');
      await page.keyboard.press('?');
      await page.locator('#help[open]').waitFor();
      assert.deepEqual(await axe(page), [], 'the keys');
    });
  }
});

test('the policy is sent and the browser enforces it', async () => {
  const mock = await new Mock({ scenario: 'well' }).listen();
  const { page } = await openPage(browser.context);
  try {
    const response = await page.goto(`${mock.url}/`);
    assert.equal(response.headers()['content-security-policy'], CSP);
    await page.evaluate(() => {
      const script = document.createElement('script');
      script.textContent = 'globalThis.inlineRan = true';
      document.body.append(script);
    });
    await page.waitForFunction(() => globalThis.violations.some((v) => v.startsWith('script-src')));
    assert.equal(await page.evaluate(() => globalThis.inlineRan), undefined);
  } finally {
    await page.close();
    await mock.close();
  }
});

test('the ledger adds up, digit by digit', () =>
  on('down', 'overview', {}, async (page) => {
    await page.locator(id('ledger-row')).first().waitFor();
    const rows = await page.locator(id('ledger-row')).evaluateAll((all) => all.map((row) => [...row.cells].map((cell) => cell.textContent)));
    assert.equal(rows.length, 3);
    for (const [, , accepted, sent, waiting, quarantined, dropped, damaged, verdict] of rows) {
      assert.equal(number(accepted), [sent, waiting, quarantined, dropped, damaged].map(number).reduce((a, b) => a + b));
      assert.equal(verdict, 'yes');
    }
  }));

test('a ledger that does not add up says by how much', () =>
  on('gap', 'overview', {}, async (page) => {
    const row = page.locator(`${id('ledger-row')}[data-name="loki/logs"]`);
    await row.getByText('off by 7').waitFor();
    assert.match(await row.locator('td').nth(8).getAttribute('class'), /bad/);
  }));

test('a destination that is down is an amber diamond with a word and a closed valve, and heals by itself', () =>
  on('down', 'overview', {}, async (page, mock) => {
    const loki = page.locator(`${id('destination')}[data-name="loki/logs"]`);
    await loki.locator('.st.wait').waitFor();
    assert.match(await loki.innerText(), /down, .* held, oldest .*, next try in \d+ s[\s\S]*503/);
    const shape = await loki.locator('.st').evaluate((el) => getComputedStyle(el).transform);
    assert.notEqual(shape, 'none', 'a diamond is a turned square');
    assert.equal(await page.locator(id('state')).innerText(), 'Loki down, held');
    const tempo = page.locator(`${id('destination')}[data-name="otlp/tempo"] .st`);
    assert.equal(await tempo.getAttribute('data-state'), 'ok');
    mock.become('well');
    await page.locator(id('state')).getByText('All delivered').waitFor();
    assert.equal(await loki.locator('.st').getAttribute('data-state'), 'ok');
    assert.equal(await page.locator(id('banner')).count(), 0);
  }));

test('a log that is nearly full is red, and says that senders keep what is refused', () =>
  on('full', 'overview', {}, async (page) => {
    await page.locator(`${id('banner')}.risk`).getByText('New data is refused.').waitFor();
    await page.locator('.lane').getByText('refused, sender keeps it').first().waitFor();
    await page.locator(`${id('destination')}[data-name="loki/logs"] .st.risk`).waitFor();
  }));

test('the first run shows lines to paste and turns into the pipeline with the first record', () =>
  on('first', 'overview', {}, async (page, mock) => {
    const first = page.locator(id('first-run'));
    await first.getByText('Running, with no configuration. Nothing leaves this machine.').waitFor();
    const lines = await first.locator('pre').first().innerText();
    assert.match(lines, /OTEL_EXPORTER_OTLP_ENDPOINT=http:\/\/127\.0\.0\.1:4318/);
    assert.match(lines, /OTEL_METRICS_EXPORTER=none/, 'a signal that is not served is turned off');
    await first.getByText('gateway demo').waitFor();
    await first.getByRole('button', { name: 'curl' }).click();
    assert.match(await first.locator('pre').first().innerText(), /^curl http:\/\/127\.0\.0\.1:4318\/v1\/logs/);
    mock.become('well');
    await page.locator(id('tank')).waitFor();
    assert.equal(await page.locator(id('destination')).count(), 3);
  }));

test('a gateway that is gone leaves its numbers, dimmed, and is found again', () =>
  on('well', 'overview', { expect: /ERR_|Failed to load/ }, async (page, mock) => {
    await page.locator(id('ledger-row')).first().waitFor();
    const { port } = mock;
    await mock.close();
    await page.locator(id('gone')).getByText('No answer from the gateway.').waitFor();
    assert.equal(await page.locator(id('ledger-row')).count(), 3);
    assert.equal(await page.locator('main > *').last().evaluate((el) => getComputedStyle(el).opacity), '0.5');
    assert.deepEqual(await axe(page).then((all) => all.filter((v) => !v.startsWith('color-contrast'))), [], 'dimmed on purpose');
    await mock.listen(port);
    await page.locator(id('gone')).waitFor({ state: 'detached' });
    assert.equal(await page.locator(id('state')).innerText(), 'All delivered');
  }));

test('without a token the page says how to get one, and opens once it has it', () =>
  on('locked', 'logs', { expect: /401/ }, async (page, mock) => {
    await page.locator(id('unauthorised')).getByText('?token=').first().waitFor();
    mock.become('well');
    await page.locator(id('log-line')).first().waitFor();
    assert.equal(await page.locator(id('unauthorised')).count(), 0);
  }));

test('without an event stream the page asks for the status now and then, and not in a circle', async () => {
  const mock = await new Mock({ scenario: 'down', auto: false }).listen();
  const { page } = await openPage(browser.context);
  try {
    mock.mute = true;
    await page.goto(`${mock.url}/#/overview`);
    await page.locator(id('ledger-row')).first().waitFor();
    mock.become('well');
    await page.locator(id('state')).getByText('All delivered').waitFor();
    const events = mock.requests.filter((r) => r.startsWith('/api/v1/events')).length;
    assert.ok(events <= 3, `${events} streams were opened`);
  } finally {
    await page.close();
    await mock.close();
  }
});

test('the token does not stay in the address bar', () =>
  on('well', 'overview', {}, async (page, mock) => {
    await page.goto(`${mock.url}/?token=secret#/logs`);
    await page.locator(id('log-line')).first().waitFor();
    assert.ok(!page.url().includes('secret'));
    assert.ok(page.url().endsWith('#/logs'));
  }));

test('a local view that is off names the line to add', () =>
  on('off', 'traces', {}, async (page) => {
    await page.locator(id('view-off')).getByText('local_view: { max: 64MiB }').waitFor();
    await page.locator(id('view-off')).getByText('gateway.yaml').waitFor();
  }));

test('the tail follows, pauses on scroll, counts what is new, and continues', () =>
  on('well', 'logs', {}, async (page, mock) => {
    const rows = page.locator(id('log-line'));
    const state = page.locator(id('tail-state'));
    await rows.first().waitFor();
    await tailing(mock);
    const before = await rows.count();
    mock.say(3);
    await until('three more lines', async () => (await rows.count()) === before + 3);
    const list = page.locator('.loglist');
    assert.ok(await list.evaluate((el) => el.scrollHeight - el.scrollTop - el.clientHeight < 3), 'the newest line is in view');
    await list.hover();
    await page.mouse.wheel(0, -400);
    await state.getByText('Paused, still receiving').waitFor();
    const held = await rows.count();
    mock.say(5);
    await page.locator(id('resume')).getByText('5 new, continue').waitFor();
    assert.equal(await rows.count(), held, 'nothing moves while paused');
    mock.say(300);
    await page.locator(id('resume')).getByText('305 new, continue').waitFor();
    await page.locator(id('resume')).click();
    await state.getByText('Live', { exact: true }).waitFor();
    await until('the newest line is in view again', () => list.evaluate((el) => el.scrollHeight - el.scrollTop - el.clientHeight < 3));
  }));

test('older lines are fetched on request, each of them once', () =>
  on('well', 'logs', {}, async (page, mock) => {
    const rows = page.locator(id('log-line'));
    await rows.first().waitFor();
    await page.getByRole('button', { name: 'Older lines' }).click();
    await until('as many again', async () => (await rows.count()) > 380);
    const ids = await rows.evaluateAll((all) => all.map((row) => row.dataset.id));
    assert.equal(new Set(ids).size, ids.length, 'a line is shown twice');
    assert.deepEqual([...ids].sort(), ids, 'no line is missing between the two answers');
    assert.equal(Number(ids.at(-1)) - Number(ids[0]) + 1, ids.length);
    assert.ok(mock.requests.some((r) => r.includes('before=')));
  }));

test('at most 400 lines stand in the document, and lines that came too fast are counted', () =>
  on('well', 'logs', {}, async (page, mock) => {
    const rows = page.locator(id('log-line'));
    await rows.first().waitFor();
    await tailing(mock);
    for (let i = 0; i < 4; i++) mock.say(250);
    await page.locator('.skipped').first().getByText(/^\d+ lines came faster/).waitFor();
    await until('the list is cut', async () => (await page.locator('.loglist > *').count()) === 400);
  }));

test('facets and the filter narrow the lines, stand in the address, and are cleared', () =>
  on('well', 'logs', {}, async (page) => {
    const rows = page.locator(id('log-line'));
    await rows.first().waitFor();
    await page.locator('.facet').getByRole('button', { name: /^error/ }).click();
    await until('errors only', async () => (await rows.evaluateAll((all) => all.every((r) => r.classList.contains('error')))) && (await rows.count()) > 0);
    assert.match(page.url(), /level=error/);
    await page.keyboard.press('f');
    await page.keyboard.type('deadlock');
    await page.locator('.ms mark').first().waitFor();
    assert.match(page.url(), /q=deadlock/);
    await page.keyboard.type('zzz');
    await page.getByText('No line in this window matches.').waitFor();
    await page.getByRole('button', { name: 'Clear every filter' }).click();
    await rows.first().waitFor();
    assert.ok(!page.url().includes('?'));
  }));

test('what a sender wrote is text: no markup of a log line becomes an element', () =>
  on('well', 'logs', {}, async (page) => {
    await page.locator(id('log-line')).getByText('<img src=x onerror=alert(1)>').first().waitFor();
    assert.equal(await page.locator('.loglist img').count(), 0);
  }));

test('a line opens with labels and metadata, leads to its trace, and the trace leads back to its lines', () =>
  on('well', 'logs', {}, async (page) => {
    const rows = page.locator(id('log-line'));
    await rows.first().waitFor();
    await page.locator('.loglist').focus();
    await page.keyboard.press('ArrowUp');
    for (let i = 0; i < 12; i++) {
      await page.keyboard.press('Enter');
      if (await page.getByRole('link', { name: 'Open trace' }).count()) break;
      await page.keyboard.press('Enter');
      await page.keyboard.press('ArrowUp');
    }
    const details = page.locator(id('log-details'));
    await details.getByText('service_name').waitFor();
    await details.getByText('detected_level').waitFor();
    await page.getByRole('link', { name: 'Open trace' }).click();
    const fall = page.locator(id('waterfall'));
    await fall.waitFor();
    assert.equal(await fall.locator('button').count(), 8);
    const wanted = new URLSearchParams(page.url().split('?')[1]).get('span');
    assert.equal(await fall.locator('button[aria-pressed=true]').getAttribute('data-span'), wanted);
    await page.getByRole('link', { name: /Logs of this trace/ }).click();
    await rows.first().waitFor();
    await page.locator('.chip').getByText('trace').waitFor();
    assert.match(page.url(), /#\/logs\?trace_id=[0-9a-f]{32}/);
  }));

test('dragging on the histogram chooses a range and pauses; Escape clears it', () =>
  on('well', 'logs', {}, async (page) => {
    await page.locator(id('log-line')).first().waitFor();
    const box = await page.locator('.hist canvas').boundingBox();
    await page.mouse.move(box.x + box.width * 0.5, box.y + 30);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.7, box.y + 30, { steps: 4 });
    await page.mouse.up();
    await page.locator(id('tail-state')).getByText('Paused on a range').waitFor();
    await page.locator('.chip').getByText(/\d\d:\d\d:\d\d to \d\d:\d\d:\d\d/).waitFor();
    await page.locator('.hist canvas').focus();
    await page.keyboard.press('Escape');
    await page.locator('.chip').waitFor({ state: 'detached' });
  }));

test('traces are walked with the arrows, narrowed to the failed ones, and a span shows its attributes', () =>
  on('well', 'traces', {}, async (page) => {
    await page.locator(id('waterfall')).waitFor();
    const list = page.getByRole('listbox', { name: 'Traces' });
    await list.focus();
    const first = await page.locator(`${id('trace-row')}[aria-selected=true]`).getAttribute('data-id');
    await page.keyboard.press('ArrowDown');
    const second = await page.locator(`${id('trace-row')}[aria-selected=true]`).getAttribute('data-id');
    assert.notEqual(first, second);
    assert.ok(page.url().includes(second));
    await page.getByRole('button', { name: 'Failed', exact: true }).click();
    await until('failed ones only', async () => (await page.locator(`${id('trace-row')}:not(.err)`).count()) === 0 && (await page.locator(id('trace-row')).count()) > 0);
    await page.locator(`${id('waterfall')} button`).nth(2).click();
    await page.locator(id('span-details')).getByText('server.address').waitFor();
  }));

test('new traces do not move the list under somebody who has scrolled', () =>
  on('well', 'traces', {}, async (page, mock) => {
    await page.locator(id('waterfall')).waitFor();
    const asked = () => mock.requests.filter((r) => r.startsWith('/api/v1/traces?')).length;
    const list = page.getByRole('listbox', { name: 'Traces' });
    await list.hover();
    await page.mouse.wheel(0, 300);
    await until('scrolled', () => list.evaluate((el) => el.scrollTop > 100));
    const before = asked();
    const beat = mock.beats;
    await until('four beats of new traces, twice what the page waits between two lists', () => mock.beats >= beat + 4);
    assert.equal(asked(), before);
    await list.evaluate((el) => (el.scrollTop = 0));
    await until('the list is asked for again', () => asked() > before);
  }));

test('a trace that is not held says so and still leads to its lines', () =>
  on('well', 'traces?id=00000000000000000000000000000001', { expect: /404/ }, async (page) => {
    await page.getByText('This trace is not held here.').waitFor();
  }));

test('the configuration says of each value where it comes from', () =>
  on('well', 'config', {}, async (page) => {
    const line = page.locator('.cfg .ln', { hasText: 'tenant: demo' });
    await line.getByText('--set send.loki.logs.tenant=demo').waitFor();
    await page.getByRole('button', { name: 'Explain' }).click();
    await page.locator(id('explain')).getByText('http.auth.bearer_file').waitFor();
    await page.locator(id('explain')).getByText('(masked)').waitFor();
    await page.getByRole('button', { name: 'Env 1' }).click();
    assert.equal(await page.locator(`${id('explain')} tbody tr`).count(), 1);
  }));

test('the keyboard goes everywhere', () =>
  on('well', 'overview', {}, async (page) => {
    await page.locator(id('ledger-row')).first().waitFor();
    const hash = (name) => page.waitForFunction((want) => location.hash.startsWith(`#/${want}`), name);
    await page.keyboard.press('/');
    await page.getByRole('combobox', { name: 'Search or go to' }).waitFor();
    await page.keyboard.type('trac');
    await page.keyboard.press('Enter');
    await hash('traces');
    for (const [key, name] of [['o', 'overview'], ['p', 'profiles'], ['l', 'logs'], ['t', 'traces'], ['m', 'metrics'], ['a', 'targets'], ['c', 'cluster'], ['b', 'probe'], ['f', 'config']]) {
      await page.keyboard.press('g');
      await page.keyboard.press(key);
      await hash(name);
    }
    await page.keyboard.press('Control+k');
    assert.equal(await page.locator('#palette').evaluate((d) => d.open), true);
    await page.keyboard.press('Escape');
    await page.keyboard.press('?');
    assert.equal(await page.locator('#help').evaluate((d) => d.open), true);
    await page.keyboard.press('Escape');
    await page.keyboard.press('t');
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'light');
    await page.keyboard.press('t');
    await page.keyboard.press('g');
    await page.keyboard.press('l');
    await page.locator(id('log-line')).first().waitFor();
    await page.keyboard.press('f');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'log-filter');
    await page.keyboard.press('Escape');
    await page.keyboard.press('Space');
    await page.locator('.btn.live').getByText('Paused').waitFor();
    await page.keyboard.press('Space');
    await page.locator('.btn.live').getByText('Live').waitFor();
    await page.keyboard.press(']');
    assert.equal(await page.getByRole('button', { name: '1 h' }).getAttribute('aria-pressed'), 'true');
    await page.keyboard.press('[');
    assert.equal(await page.getByRole('button', { name: '15 m' }).getAttribute('aria-pressed'), 'true');
  }));

test('the focus is always visible, and the first stop skips to the content', () =>
  on('well', 'overview', {}, async (page) => {
    await page.locator(id('ledger-row')).first().waitFor();
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to content');
    for (let i = 0; i < 22; i++) {
      await page.keyboard.press('Tab');
      const bare = await page.evaluate(() => {
        const el = document.activeElement;
        const style = getComputedStyle(el);
        return el === document.body || (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2) ? null : el.outerHTML.slice(0, 80);
      });
      assert.equal(bare, null, 'no ring on it');
    }
  }));

test('on a narrow window the rail is a drawer and the facets fold', () =>
  on('well', 'logs', { width: 360, height: 780 }, async (page) => {
    await page.locator(id('log-line')).first().waitFor();
    assert.equal(await page.locator('.rail').isVisible(), false);
    await page.getByRole('button', { name: 'Pages' }).click();
    await page.locator('.rail').getByRole('link', { name: 'Logs' }).waitFor();
    await page.keyboard.press('Escape');
    assert.equal(await page.locator('.rail').isVisible(), false);
    const facets = page.getByRole('button', { name: 'Facets' });
    assert.equal(await page.locator('.facet').isVisible(), false);
    await facets.click();
    await page.locator('.facet').getByText('orders-db').waitFor();
  }));
