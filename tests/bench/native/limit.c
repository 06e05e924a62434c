// limit: the least that a server can do for an update: one send() per client and nothing else.
//
//   ./limit --clients N --update TEXT
//
// A peer like the others (see ../peer_programs/orders.py): prints {"port": N}, takes commands on standard input. What the
// other servers reach is told as a share of this one.
#include "ws.h"

static int *clients, n_clients, expected;
static double rate; // updates a second; 0 none, < 0 as many as possible
static uint64_t sequence, due_ns, busy_until;
static const char *update;

static void open_client(int fd) { // the load client speaks first, and waits for the answer
    char request[4096], answer[256];
    ssize_t n = recv(fd, request, sizeof request - 1, 0);
    request[n > 0 ? n : 0] = 0;
    size_t length = handshake_answer(request, answer);
    if (!length || send(fd, answer, length, MSG_NOSIGNAL) < 0) { close(fd); return; }
    set_nonblocking(fd), set_nodelay(fd);
    clients[n_clients++] = fd;
}

static size_t put_number(char *to, uint64_t value) { return sprintf(to, "%llu", (unsigned long long)value); }

static size_t put_update(uint8_t *frame, uint64_t stamp) { // @N is the sequence number, @S the stamp
    char text[2048];
    size_t n = 0;
    for (const char *p = update; *p;) {
        if (*p != '@') { text[n++] = *p++; continue; }
        n += put_number(text + n, p[1] == 'S' ? stamp : sequence);
        p += 2;
    }
    size_t head = frame_head(frame, OP_TEXT, n);
    memcpy(frame + head, text, n);
    return head + n;
}

static void broadcast(uint64_t stamp) {
    uint8_t frame[2064];
    sequence++;
    size_t n = put_update(frame, stamp);
    for (int i = 0; i < n_clients; i++) {
        size_t sent = 0;
        while (sent < n) { // whoever is full is waited for
            ssize_t r = send(clients[i], frame + sent, n - sent, MSG_NOSIGNAL);
            if (r > 0) { sent += r; continue; }
            if (errno != EAGAIN) break;
            poll(&(struct pollfd){clients[i], POLLOUT, 0}, 1, 100);
        }
    }
}

static void broadcast_due(void) {
    for (int i = 0; i < 16; i++) { // then a look at the commands
        uint64_t now = monotonic_ns();
        if (now < due_ns) return;
        broadcast(realtime_ns() - (due_ns < busy_until ? now - due_ns : 0));
        busy_until = monotonic_ns();
        due_ns += (uint64_t)(1e9 / rate);
    }
}

static void obey(char *line) {
    if (!strncmp(line, "rate ", 5)) rate = atof(line + 5), due_ns = monotonic_ns();
    else if (!strncmp(line, "flood", 5)) rate = -1;
    else if (!strncmp(line, "idle", 4)) rate = 0;
    printf("{\"sent\":%llu}\n", (unsigned long long)sequence);
    fflush(stdout);
}

static void read_commands(void) { // one line at a time: each is answered before the next is sent
    char line[256];
    ssize_t n = read(0, line, sizeof line - 1);
    if (n <= 0) exit(0);
    line[n] = 0;
    obey(line);
}

static struct timespec until_due(void) {
    int64_t ns = rate < 0 ? 0 : rate == 0 ? 100000000 : (int64_t)(due_ns - monotonic_ns());
    ns = ns < 0 ? 0 : ns > 100000000 ? 100000000 : ns;
    return (struct timespec){ns / 1000000000, ns % 1000000000};
}

int main(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--clients")) expected = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--update")) update = argv[i + 1];
    }
    if (!expected || !update) return fprintf(stderr, "usage: limit --clients N --update TEXT\n"), 2;
    bounded_life();
    clients = calloc(expected, sizeof *clients);
    int listener = listen_on(0);
    printf("{\"port\":%d}\n", port_of(listener)), fflush(stdout);
    for (;;) {
        struct pollfd p[2] = {{0, POLLIN, 0}, {listener, n_clients < expected ? POLLIN : 0, 0}};
        struct timespec t = until_due();
        ppoll(p, 2, &t, NULL);
        if (p[0].revents) read_commands();
        if (p[1].revents & POLLIN) {
            int fd = accept(listener, NULL, NULL);
            if (fd >= 0) open_client(fd);
        }
        if (rate < 0) broadcast(realtime_ns());
        else if (rate > 0) broadcast_due();
    }
}
