// The committed page is what the source builds, weighs what was promised, and asks nobody else for anything.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { buildPage } from '../build.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const DIST = path.join(here, '../dist');

async function contents(folder) {
  const files = new Map();
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const at = path.join(entry.parentPath ?? entry.path, entry.name);
    files.set(path.relative(folder, at), await readFile(at, 'utf8'));
  }
  return files;
}

test('the committed page is byte for byte what the source builds', async () => {
  const out = await mkdtemp(path.join(tmpdir(), 'bulkhead-dist-'));
  try {
    const { compressed } = await buildPage(out);
    const [built, committed] = [await contents(out), await contents(DIST)];
    assert.deepEqual([...committed.keys()].sort(), [...built.keys()].sort(), 'other files: run npm run build and commit dist/');
    for (const [name, text] of built) assert.ok(committed.get(name) === text, `${name} differs: run npm run build and commit dist/`);
    assert.ok(compressed < 200_000, `${compressed} bytes`);
  } finally {
    await rm(out, { recursive: true, force: true });
  }
});

test('the page holds nothing that its policy would block', async () => {
  const html = await readFile(path.join(DIST, 'index.html'), 'utf8');
  assert.doesNotMatch(html, /<style|\sstyle=|\son\w+=|javascript:/i);
  assert.doesNotMatch(html.replace(/<script[^>]*\ssrc="[^"]*"><\/script>/g, ''), /<script/i);
  for (const [name, text] of await contents(DIST)) {
    const hosts = [...text.matchAll(/https?:\/\/([\w.-]+)/g)].map((m) => m[1]);
    const allowed = ['127.0.0.1', 'www.w3.org'];
    assert.deepEqual(hosts.filter((h) => !allowed.includes(h)), [], `${name} names another host`);
    assert.doesNotMatch(text, /\beval\(|new Function\(|innerHTML|insertAdjacentHTML/, name);
  }
});

test('the lock file names no registry', async () => {
  assert.doesNotMatch(await readFile(path.join(here, '../package-lock.json'), 'utf8'), /"resolved"|registry\./);
});
