/**
 * Socket.IO in front, Roomcast behind: clients of before keep their library, their names of events and their acknowledgements. Each of
 * them is one user of Roomcast, with the rights of its own token; the bridge itself may nothing.
 */

import { Server } from 'socket.io';
import { Client } from 'roomcast';
import { WebSocket } from 'ws';

/** A packet at most, in bytes, as at the gateway. */
const PACKET_BYTES_MAX = 64 * 1024;
/** Packets that wait for one client at most; who reads more slowly is disconnected, and comes back by itself. */
const WAITING_MAX = 1_000;
/** How long a client may take to be signed in, in milliseconds. */
const SIGN_IN_MS = 10_000;

/**
 * Puts the bridge onto an HTTP server. `gateway`: its address; `rooms`: those whose events clients are told, where their roles open them;
 * `origins`: pages of other origins that may connect. Answers the Socket.IO server.
 */
export function bridge(server, { gateway, rooms, origins = [], log = console }) {
  const io = new Server(server, { maxHttpBufferSize: PACKET_BYTES_MAX, connectTimeout: SIGN_IN_MS, cors: { origin: origins } });
  io.use((socket, next) => {
    signIn(socket, gateway, log).then(
      (client) => {
        socket.data.client = client;
        next();
      },
      (error) => next(Object.assign(new Error(error.message), { data: { code: error.code } })),
    );
  });
  io.on('connection', (socket) => serve(socket, socket.data.client, rooms));
  return io;
}

/** A client with the token of the handshake, once it is live; a newer token comes as the event `token`. */
async function signIn(socket, gateway, log) {
  const { auth, headers } = socket.handshake;
  socket.data.token = auth?.token ?? /^Bearer (.+)$/i.exec(headers.authorization ?? '')?.[1];
  const client = new Client({ url: gateway, name: 'roomcast-socketio', webSocket: WebSocket, token: () => socket.data.token, onProblem: (problem) => log.warn(String(problem)) });
  socket.conn.once('close', () => client.close());
  await new Promise((settle, fail) => {
    const timer = setTimeout(() => fail(Object.assign(new Error('Roomcast cannot be reached.'), { code: 'unavailable' })), SIGN_IN_MS);
    const stop = client.onConnection(({ status, error }) => {
      if (status !== 'live' && status !== 'closed') return;
      clearTimeout(timer);
      stop();
      if (status === 'live') settle();
      else fail(error);
    });
    client.connect();
  }).catch((error) => {
    client.close();
    throw error;
  });
  return client;
}

function serve(socket, client, rooms) {
  const say = (name, data) => {
    if (socket.conn.writeBuffer.length >= WAITING_MAX) return void socket.disconnect(true);
    // Names that Socket.IO keeps for itself cannot be said.
    if (!RESERVED.has(name)) socket.emit(name, data);
  };
  for (const room of rooms) {
    client.subscribe(room, {
      history: 0,
      onEvent: ({ type, data }) => say(type, data),
      onState: ({ event }) => event !== undefined && say(event.type, event.data),
      // A room that is not the user's is not there for it: that is no error of the client's.
      onError: () => undefined,
    });
  }
  client.onConnection(({ status, error }) => {
    if (status !== 'closed') return;
    if (error !== undefined) say('error', { code: error.code, message: error.message });
    socket.disconnect(true);
  });
  socket.onAny(async (name, ...given) => {
    const answer = typeof given.at(-1) === 'function' ? given.pop() : undefined;
    const [data = null] = given;
    if (name === 'token') return void (socket.data.token = String(data));
    if (name === 'ping') return answer === undefined ? say('pong', data) : answer(data);
    try {
      // The key of an application's own, where it has one: the same command is then carried out once, however often it is sent.
      const key = typeof data?.key === 'string' ? { key: data.key } : {};
      const result = await client.command(name, data, { queue: false, ...key });
      answer?.({ ok: true, data: result });
    } catch ({ code, message, temporary }) {
      const error = { code, message, temporary: temporary === true };
      if (answer === undefined) say('error', { ...error, command: name });
      else answer({ ok: false, error });
    }
  });
  socket.once('disconnect', () => client.close());
}

const RESERVED = new Set(['connect', 'connect_error', 'disconnect', 'disconnecting', 'newListener', 'removeListener']);
