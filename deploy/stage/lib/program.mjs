// Programs that run beside us: their output is kept in a file, and they end with us, however we end.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import readline from 'node:readline';

const GRACE_MS = 8000;
const running = new Set();

// `onLine` sees each line of its output, `onExit` an end that nobody asked for.
export function start(name, command, args, { log, env = {}, cwd, onLine = () => {}, onExit = () => {} }) {
  // The kernel ends it if we are killed. Ctrl-C reaches a whole process group: in one of its own it is ours to end.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...args], {
    cwd, env: { ...process.env, NO_COLOR: '1', ...env }, stdio: ['ignore', 'pipe', 'pipe'], detached: true,
  });
  const file = fs.createWriteStream(log, { flags: 'a' });
  const tail = [];
  for (const input of [child.stdout, child.stderr]) {
    readline.createInterface({ input }).on('line', (line) => {
      file.write(`${line}\n`);
      tail.push(line);
      if (tail.length > 400) tail.shift();
      onLine(line);
    });
  }
  const program = { name, child, tail, log, ended: false, asked: false };
  program.exited = new Promise((resolve) => {
    const end = (code, signal) => {
      if (program.ended) return;
      program.ended = true;
      running.delete(program);
      file.end();
      resolve({ code, signal });
      if (!program.asked) onExit(code ?? signal);
    };
    child.on('exit', end);
    child.on('error', (error) => {
      tail.push(String(error));
      end(-1);
    });
  });
  running.add(program);
  return program;
}

export async function stop(program, signal = 'SIGTERM') {
  if (!program || program.ended) return;
  program.asked = true;
  program.child.kill(signal);
  const timer = setTimeout(() => program.child.kill('SIGKILL'), GRACE_MS);
  await program.exited;
  clearTimeout(timer);
}

export async function stopAll() {
  await Promise.all([...running].map((program) => stop(program)));
}
