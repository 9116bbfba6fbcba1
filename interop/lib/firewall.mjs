// What the network drops, of both kinds of IP, while something runs.
import { execFileSync } from 'node:child_process';

export async function dropping(rule, run, programs = ['iptables', 'ip6tables']) {
  const apply = (action) => programs.forEach((program) => execFileSync(program, [action, 'INPUT', ...rule.split(' '), '-j', 'DROP']));
  apply('-A');
  try {
    await run();
  } finally {
    apply('-D');
  }
}
