// The pages that browsers load: livekit-client of both versions, bundled, served on localhost (a secure context).
import { createServer } from 'node:http';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

async function bundle(client) {
  const result = await build({
    entryPoints: [here('../clients/page.js')],
    absWorkingDir: here('..'), bundle: true, write: false, format: 'iife', target: 'es2022', logLevel: 'error',
    alias: { 'livekit-client': client },
  });
  return result.outputFiles[0].text;
}

export async function serve() {
  const scripts = { current: await bundle('livekit-client'), dual: await bundle('livekit-client-2.16') };
  const html = fs.readFileSync(here('../clients/page.html'));
  // The worker speaks with its own version only.
  const worker = (client) => fs.readFileSync(here(`../node_modules/${client}/dist/livekit-client.e2ee.worker.js`));
  const workers = { current: worker('livekit-client'), dual: worker('livekit-client-2.16') };
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://localhost');
    const version = searchParams.get('version') ?? request.headers.referer?.match(/version=(\w+)/)?.[1] ?? 'current';
    const [type, body] = {
      '/': ['text/html', html],
      '/page.js': ['text/javascript', scripts[version]],
      '/e2ee-worker.js': ['text/javascript', workers[version]],
    }[pathname] ?? ['text/plain', ''];
    response.setHeader('content-type', `${type}; charset=utf-8`);
    response.end(body);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return { server, url: (version) => `http://127.0.0.1:${server.address().port}/?version=${version}` };
}
