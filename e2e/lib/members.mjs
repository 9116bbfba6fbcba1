// Who is in a call by the word of a homeserver.
import { settle } from '../../interop/lib/wait.mjs';

export async function membersAre(user, room, expected, deadline) {
  const ids = expected.map(({ id }) => id).sort();
  await settle(`${user.name}'s homeserver has in the call: ${ids.join(', ') || 'nobody'}`, async () => {
    const members = await user.callMembers(room);
    if (members.join() === ids.join()) return true;
    throw new Error(members.join(', '));
  }, deadline);
}
