// @livekit/rtc-node, driven by commands on standard input, answers on standard output, one JSON a line.
import readline from 'node:readline';
import {
  AudioFrame, AudioSource, AudioStream, LocalAudioTrack, LocalVideoTrack, Room, RoomEvent, TrackKind, TrackPublishOptions,
  TrackSource, VideoBufferType, VideoCodec, VideoFrame, VideoSource, VideoStream, dispose,
} from '@livekit/rtc-node';

const RATE = 48000;
const room = new Room();
const tracks = new Map();
const received = [];
const events = [];
const local = new Map();
let connected = false;

const note = (name, detail = {}) => events.push({ at: Date.now(), name, ...detail });

async function watch(track, publication, participant) {
  const entry = {
    from: participant.identity, sid: publication.sid, kind: track.kind === TrackKind.KIND_VIDEO ? 'video' : 'audio',
    frames: 0, energy: 0, subscribed: true, lastAt: 0, longestGap: 0,
  };
  tracks.set(publication.sid, entry);
  const seen = () => {
    const now = Date.now();
    if (entry.lastAt) entry.longestGap = Math.max(entry.longestGap, now - entry.lastAt);
    entry.lastAt = now;
    entry.frames += 1;
  };
  if (entry.kind === 'video') {
    for await (const { frame } of new VideoStream(track)) {
      seen();
      [entry.width, entry.height] = [frame.width, frame.height];
    }
  } else {
    for await (const frame of new AudioStream(track)) {
      seen();
      let sum = 0;
      for (const sample of frame.data) sum += (sample / 32768) ** 2;
      entry.energy += sum / frame.data.length;
    }
  }
}

room.on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
  note('trackSubscribed', { sid: publication.sid, from: participant.identity });
  watch(track, publication, participant).catch((error) => note('error', { error: String(error) }));
});
room.on(RoomEvent.TrackUnsubscribed, (_, publication) => tracks.delete(publication.sid));
room.on(RoomEvent.TrackUnpublished, (publication, participant) => note('trackUnpublished', { sid: publication.sid, from: participant.identity }));
room.on(RoomEvent.TrackMuted, (publication, participant) => note('trackMuted', { from: participant.identity }));
room.on(RoomEvent.TrackUnmuted, (publication, participant) => note('trackUnmuted', { from: participant.identity }));
room.on(RoomEvent.ParticipantConnected, (participant) => note('participantConnected', { from: participant.identity }));
room.on(RoomEvent.ParticipantDisconnected, (participant) => note('participantDisconnected', { from: participant.identity }));
room.on(RoomEvent.Disconnected, (reason) => note('disconnected', { reason }));
room.on(RoomEvent.Reconnecting, () => note('reconnecting'));
room.on(RoomEvent.Reconnected, () => note('reconnected'));
room.on(RoomEvent.DataReceived, (payload, participant, kind, topic) =>
  received.push({ from: participant?.identity, topic, bytes: payload.length, text: payload.length < 1000 ? new TextDecoder().decode(payload) : undefined }));

const codecs = { vp8: VideoCodec.VP8, h264: VideoCodec.H264, vp9: VideoCodec.VP9, av1: VideoCodec.AV1 };

const commands = {
  async connect({ url, token, options = {} }) {
    const start = Date.now();
    await room.connect(url, token, { autoSubscribe: true, dynacast: true, ...options });
    connected = true;
    return { sid: room.localParticipant.sid, ms: Date.now() - start };
  },

  async publish({ source = 'camera', codec = 'vp8', simulcast = true, width = 640, height = 360 }) {
    const options = new TrackPublishOptions();
    if (source === 'microphone') {
      const audio = new AudioSource(RATE, 1);
      options.source = TrackSource.SOURCE_MICROPHONE;
      const track = LocalAudioTrack.createAudioTrack('mic', audio);
      const publication = await room.localParticipant.publishTrack(track, options);
      local.set(publication.sid, track);
      speak(audio);
      return { sid: publication.sid };
    }
    const video = new VideoSource(width, height);
    options.source = source === 'screen' ? TrackSource.SOURCE_SCREENSHARE : TrackSource.SOURCE_CAMERA;
    options.simulcast = simulcast;
    options.videoCodec = codecs[codec];
    const track = LocalVideoTrack.createVideoTrack('cam', video);
    const publication = await room.localParticipant.publishTrack(track, options);
    local.set(publication.sid, track);
    paint(video, width, height);
    return { sid: publication.sid };
  },

  async unpublish({ sid }) {
    await room.localParticipant.unpublishTrack(sid);
    return {};
  },
  async mute({ sid, muted }) {
    await (muted ? local.get(sid).mute() : local.get(sid).unmute());
    return {};
  },
  async remote() { return [...tracks.values()]; },
  async send({ text, topic, to, reliable = true }) {
    await room.localParticipant.publishData(new TextEncoder().encode(text), { reliable, topic, destination_identities: to });
    return {};
  },
  async participants() {
    return [...room.remoteParticipants.values()].map((p) => ({ identity: p.identity, sid: p.sid, name: p.name, metadata: p.metadata }));
  },
  async received() { return received; },
  async events() { return events; },
  async state() { return { state: connected ? 'connected' : 'new', sid: room.localParticipant?.sid }; },
  async disconnect() {
    await room.disconnect();
    return {};
  },
};

function speak(audio) {
  let phase = 0;
  const loop = async () => {
    for (;;) {
      const samples = new Int16Array(RATE / 100);
      for (let at = 0; at < samples.length; at += 1) samples[at] = 12000 * Math.sin((phase++ * 2 * Math.PI * 440) / RATE);
      await audio.captureFrame(new AudioFrame(samples, RATE, 1, samples.length));
    }
  };
  loop().catch(() => {});
}

function paint(video, width, height) {
  const size = width * height;
  let step = 0;
  setInterval(() => {
    const data = new Uint8Array((size * 3) / 2).fill(128);
    for (let row = 0; row < height; row += 1) data.fill((row * 2 + step * 5) & 255, row * width, (row + 1) * width);
    step += 1;
    video.captureFrame(new VideoFrame(data, width, height, VideoBufferType.I420));
  }, 66);
}

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const { id, name, argument } = JSON.parse(line);
  let answer;
  try {
    answer = { id, ok: await commands[name](argument ?? {}) };
  } catch (error) {
    answer = { id, error: String(error?.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
lines.on('close', async () => {
  await dispose();
  process.exit(0);
});
