// Joins GraphiQL to the endpoint that served the page: queries by HTTP, subscriptions by WebSocket.
"use strict";

const url = new URL(document.currentScript.dataset.endpoint, location.href);
const socket = new URL(url);
socket.protocol = url.protocol === "https:" ? "wss:" : "ws:";

const fetcher = GraphiQL.createFetcher({
  url: url.href,
  wsClient: graphqlWs.createClient({ url: socket.href }),
});

const defaultQuery = `# The bar of the day of a symbol. Choose an operation beside the button that runs it.
query Bar($symbol: String = "BTC-USDT") {
  marketData(symbol: $symbol) { symbol open high low close volume timestamp }
}

# Every trade from now on.
subscription Trades($symbol: String = "BTC-USDT") {
  trades(symbol: $symbol) { time side qty price source offset }
}
`;

ReactDOM.createRoot(document.getElementById("graphiql")).render(
  React.createElement(GraphiQL, { fetcher, defaultQuery }),
);
