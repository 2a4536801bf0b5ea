// Socket.IO's own client: node socketio_client.mjs FOLDER URL; FOLDER holds node_modules. Prints what came of it, as JSON.

import { createRequire } from "node:module";

const [folder, url] = process.argv.slice(2);
const { io } = createRequire(`${folder}/`)("socket.io-client");

const once = (socket, event) => new Promise(resolve => socket.once(event, (...words) => resolve(words)));

async function talk(transports, auth) {
    const socket = io(url, { transports, auth, reconnection: false, forceNew: true });
    await once(socket, "connect");
    if (socket.io.engine.transport.name !== "websocket") await once(socket.io.engine, "upgrade");
    return socket;
}

const report = {};
for (const transports of [["websocket"], ["polling", "websocket"]]) {
    const one = await talk(transports), other = await talk(transports);
    const payloads = ["Käse 🧀", { deep: [1, null, "x".repeat(200000)] }, Buffer.alloc(300000, 7)];
    let echoed = 0;
    for (const payload of payloads) {
        const answer = await one.emitWithAck("echo", payload);
        echoed += Buffer.isBuffer(payload) ? payload.equals(answer) : JSON.stringify(payload) === JSON.stringify(answer);
    }
    const room = transports.join("+");
    const joined = [await one.emitWithAck("join", room), await other.emitWithAck("join", room)];
    const heard = Promise.all([once(one, "said"), once(other, "said")]);
    one.emit("say", room, "hello");
    const said = await heard;
    // Longer than the server waits between its pings.
    await new Promise(resolve => setTimeout(resolve, 1500));
    const stayed = one.connected && other.connected;
    const gone = once(other, "disconnect");
    other.emit("expel");
    report[room] = { echoed, joined, said, stayed, expelled: (await gone)[0], id: one.id };
    one.disconnect();
}
const refused = io(url, { transports: ["websocket"], auth: { ticket: "none" }, reconnection: false, forceNew: true });
report.refused = (await once(refused, "connect_error"))[0].message;
const last = await talk(["websocket"]);
report.last = last.id;
const left = once(last, "disconnect");
console.log(JSON.stringify(report));
console.log(JSON.stringify(await left)); // when the server stops
