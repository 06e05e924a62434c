// A producer in C++: connects to a source that listens and sends ticks, one frame each.
//
//   ticks PORT COUNT FIRST        the n-th tick has the exchange timestamp FIRST + n, in ns
//
// Built from the .proto that dataflow ships:
//   protoc --cpp_out=. -I dataflow/protobuf marketdata.proto && g++ ticks.cpp marketdata.pb.cc -lprotobuf
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>

#include "marketdata.pb.h"

static bool send_all(int source, const std::string &bytes) {
    for (size_t sent = 0; sent < bytes.size();) {
        ssize_t n = send(source, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) return false;
        sent += n;
    }
    return true;
}

static std::string frame(const marketdata::Tick &tick) {
    std::string message = tick.SerializeAsString();
    uint32_t length = htonl(message.size());
    return std::string(reinterpret_cast<char *>(&length), sizeof length) + message;
}

int main(int argc, char **argv) {
    if (argc != 4) return std::cerr << "usage: ticks PORT COUNT FIRST\n", 2;
    int source = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(std::atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(source, reinterpret_cast<sockaddr *>(&address), sizeof address)) return perror("connect"), 1;
    int64_t first = std::atoll(argv[3]);
    for (int64_t n = 0; n < std::atoll(argv[2]); n++) {
        marketdata::Tick tick;
        tick.set_symbol(" aApL ");
        tick.set_price(100.25 + n / 4.0);
        tick.set_volume(10 + n);
        tick.set_exchange_timestamp(first + n);
        tick.set_ingest_timestamp(first);
        if (!send_all(source, frame(tick))) return perror("send"), 1;
    }
    return close(source) ? 1 : 0;
}
