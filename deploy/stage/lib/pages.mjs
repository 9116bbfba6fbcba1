// A page for each person: Element Call and its host, on an origin of its own, so that two people can share a browser.
import { createServer } from 'node:http';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = (file) => fileURLToPath(new URL(file, import.meta.url));
const ELEMENT_CALL = here('../node_modules/@element-hq/element-call-embedded/dist');
const TYPES = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css', '.json': 'application/json',
  '.wasm': 'application/wasm', '.svg': 'image/svg+xml', '.woff2': 'font/woff2', '.woff': 'font/woff', '.mp3': 'audio/mpeg',
  '.ogg': 'audio/ogg', '.png': 'image/png',
};

let bundle;
async function hostScript() {
  bundle ??= build({
    entryPoints: [here('../host/host.js')], absWorkingDir: here('..'),
    bundle: true, write: false, format: 'iife', target: 'es2022', logLevel: 'error',
  });
  return (await bundle).outputFiles[0].text;
}

// What is in `element-call`'s folder, and nothing beside it.
function widgetFile(name) {
  const file = path.join(ELEMENT_CALL, path.normalize(name));
  return file.startsWith(ELEMENT_CALL + path.sep) && fs.existsSync(file) ? fs.readFileSync(file) : undefined;
}

// `session()` says who the page is for: homeserver, user, device, token, room, name. `settings` are Element Call's.
export async function serve({ session, settings, port = 0 }) {
  const script = await hostScript();
  const page = fs.readFileSync(here('../host/host.html'));
  const server = createServer((request, response) => {
    const name = decodeURIComponent(new URL(request.url, 'http://localhost').pathname);
    const body = {
      '/': () => page,
      '/host.js': () => script,
      '/session.json': () => JSON.stringify(session()),
      '/call/config.json': () => JSON.stringify(settings),
    }[name]?.() ?? (name.startsWith('/call/') ? widgetFile(name.slice('/call/'.length)) : undefined);
    response.setHeader('content-type', TYPES[name === '/' ? '.html' : path.extname(name)] ?? 'application/octet-stream');
    response.setHeader('cache-control', 'no-cache');
    response.statusCode = body === undefined ? 404 : 200;
    response.end(body ?? 'not found');
  });
  await new Promise((done, failed) => server.once('error', failed).listen(port, '127.0.0.1', done));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => (server.closeAllConnections(), server.close()) };
}
