// Builds the page: src/ -> dist/index.html + dist/assets/NAME-HASH.{js,css}.
//
// Shape: one module and one style sheet, named by their content, and the page that loads them. The gateway embeds the folder, so
// it is committed; test/dist.test.mjs builds it again and compares. Nothing here reads the clock, the host or the network.
// Usage: node build.mjs [OUT_DIR]
import { build } from 'esbuild';
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const COMPRESSED_BYTES_MAX = 200_000;

export async function buildPage(out = path.join(here, 'dist')) {
  const result = await build({
    absWorkingDir: here,
    entryPoints: { app: 'src/main.ts', style: 'src/style/page.css' },
    entryNames: 'assets/[name]-[hash]',
    outdir: out,
    bundle: true,
    minify: true,
    charset: 'utf8',
    format: 'esm',
    target: ['es2022', 'chrome111', 'firefox113', 'safari16.2'],
    legalComments: 'none',
    metafile: true,
    write: false,
    logLevel: 'warning',
  });
  const name = (ext) => {
    const file = result.outputFiles.find((f) => f.path.endsWith(ext));
    if (!file) throw new Error(`the build made no ${ext} file`);
    return path.basename(file.path);
  };
  const template = await readFile(path.join(here, 'src/index.html'), 'utf8');
  const html = template.replace('{{style}}', name('.css')).replace('{{script}}', name('.js'));
  await rm(out, { recursive: true, force: true });
  await mkdir(path.join(out, 'assets'), { recursive: true });
  for (const file of result.outputFiles) await writeFile(file.path, file.contents);
  await writeFile(path.join(out, 'index.html'), html);
  return weigh(out);
}

async function weigh(out) {
  const rows = [];
  for (const file of (await readdir(out, { recursive: true })).sort()) {
    if (!/\.\w+$/.test(file)) continue;
    const bytes = await readFile(path.join(out, file));
    rows.push({ file, bytes: bytes.length, compressed: gzipSync(bytes, { level: 9 }).length });
  }
  const compressed = rows.reduce((sum, row) => sum + row.compressed, 0);
  if (compressed > COMPRESSED_BYTES_MAX) throw new Error(`the page weighs ${compressed} bytes compressed, more than ${COMPRESSED_BYTES_MAX}`);
  return { rows, compressed };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { rows, compressed } = await buildPage(process.argv[2] ? path.resolve(process.argv[2]) : undefined);
  for (const row of rows) console.log(`${row.file}  ${row.bytes} bytes, ${row.compressed} compressed`);
  console.log(`${compressed} bytes compressed in all`);
}
