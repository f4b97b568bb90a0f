// Runs every test; says SKIP in plain words for what this machine cannot run, and never calls that a pass.
import { spawnSync } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { findChromium } from './browser.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const needsBrowser = (file) => file.startsWith('page');
const chromium = await findChromium();
const files = (await readdir(here)).filter((file) => file.endsWith('.test.mjs')).sort();
const run = files.filter((file) => chromium || !needsBrowser(file));
const { status } = spawnSync(process.execPath, ['--test', '--test-concurrency=1', '--test-reporter=spec', ...run.map((file) => path.join(here, file))], { stdio: 'inherit' });
const skipped = files.filter((file) => !run.includes(file));
if (skipped.length) console.log(`SKIP ${skipped.join(', ')}: no Chromium at ${process.env.CHROMIUM || '/usr/bin/chromium'}. Install it or set CHROMIUM=/path/to/chromium.`);
process.exitCode = status ?? 1;
