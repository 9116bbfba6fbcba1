// Child processes that are ended with us, and whose output is kept for error messages.
import { spawn } from 'node:child_process';
import readline from 'node:readline';

const running = new Set();

export function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
  running.add(child);
  const tail = [];
  const keep = (line) => {
    tail.push(line);
    if (tail.length > 400) tail.shift();
  };
  readline.createInterface({ input: child.stderr }).on('line', keep);
  const exited = new Promise((resolve) => {
    child.on('exit', (code, signal) => {
      running.delete(child);
      resolve({ code, signal });
    });
    child.on('error', (error) => {
      keep(String(error));
      running.delete(child);
      resolve({ code: -1 });
    });
  });
  child.stdin.on('error', () => {});
  return { child, tail, keep, exited };
}

export async function stop(process, grace = 5000) {
  process.child.stdin.end();
  const timer = setTimeout(() => process.child.kill('SIGKILL'), grace);
  await process.exited;
  clearTimeout(timer);
}

export function killAll() {
  for (const child of running) child.kill('SIGKILL');
}
