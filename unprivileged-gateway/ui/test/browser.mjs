// Chromium for the tests: where it is, how it is started, and what counts as an error in it.
import { access, constants, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export async function findChromium() {
  const at = process.env.CHROMIUM || '/usr/bin/chromium';
  try {
    await access(at, constants.X_OK);
    return at;
  } catch {
    return null;
  }
}

/** A browser with a fresh profile; `close` removes both. */
export async function startBrowser(executablePath, options = {}) {
  const profile = await mkdtemp(path.join(tmpdir(), 'bulkhead-ui-'));
  const context = await chromium.launchPersistentContext(profile, { executablePath, args: FLAGS, headless: true, ...options });
  return {
    context,
    async close() {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

/** A page that remembers every console error, script error, CSP violation and request off this machine. */
export async function openPage(context, { width = 1440, height = 900, theme = 'dark', calm = true } = {}) {
  const page = await context.newPage();
  await page.setViewportSize({ width, height });
  await page.emulateMedia({ colorScheme: theme, reducedMotion: calm ? 'reduce' : 'no-preference' });
  const errors = [];
  page.on('console', (m) => m.type() === 'error' && errors.push(m.text()));
  page.on('pageerror', (e) => errors.push(String(e)));
  page.on('request', (r) => /^(http:\/\/127\.0\.0\.1|data:|blob:)/.test(r.url()) || errors.push(`request to ${r.url()}`));
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener('securitypolicyviolation', (e) => globalThis.violations.push(`${e.violatedDirective} ${e.blockedURI}`));
  });
  return { page, errors };
}
