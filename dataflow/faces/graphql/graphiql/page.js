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

# Trades and candles of any time. Go on with "next", as "after" or as "from".
query Past($symbol: String = "BTC-USDT") {
  trades(symbol: $symbol, limit: 10) { trades { time side qty price offset } gaps { from to reason } next }
  candles(symbol: $symbol, interval: "1m", limit: 10) { candles { start open high low close volume complete } }
}

# Every trade from now on.
subscription Trades($symbol: String = "BTC-USDT") {
  trades(symbol: $symbol) { time side qty price source offset }
}
`;

ReactDOM.createRoot(document.getElementById("graphiql")).render(
  React.createElement(GraphiQL, { fetcher, defaultQuery }),
);
