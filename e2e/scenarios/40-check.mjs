// What operators are told about this path from a homeserver to a call.
import { execFile } from 'node:child_process';
import { expect } from '../../interop/lib/wait.mjs';

// What it says, and its status.
function check(world, user) {
  return new Promise((done) => {
    const args = ['check', user.homeserver.url, '--access-token', user.token];
    execFile(world.weir, args, { timeout: 60000 }, (error, said) => done({ said, status: error?.code ?? 0 }));
  });
}

export default [
  {
    name: 'weir check goes all the way from a real homeserver, and names what stops it',
    async run({ world }) {
      const user = await world.user('Alice', 'a');
      const whole = await check(world, user);
      expect(whole.status === 0 && whole.said.match(/^ok /gm)?.length === 8 && !whole.said.includes('note:'), whole.said);
      await world.foci.a.stop();
      const broken = await check(world, user);
      expect(broken.status === 1 && broken.said.includes('FAILED  service: ') && broken.said.includes('remedy: '), broken.said);
    },
  },
];
