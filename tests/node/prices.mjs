// A client that only listens: `node prices.mjs URL` tells what it hears.
import WebSocket from "ws";

const tell = (event) => process.stdout.write(JSON.stringify(event) + "\n");
const socket = new WebSocket(process.argv[2]);
socket.on("open", () => tell({ open: socket.protocol }));
socket.on("message", (data, binary) => tell(binary ? { bytes: data.length } : { text: data.toString() }));
socket.on("unexpected-response", (_request, response) => tell({ refused: response.statusCode }));
socket.on("close", (code) => tell({ closed: code }));
socket.on("error", () => {}); // a close follows
