// @generated@
// The link to the host.
#ifndef LAYERTAP_WIRE_PORT_H_
#define LAYERTAP_WIRE_PORT_H_

#include <stddef.h>
#include <stdint.h>

namespace wire_port {

void start();

// The next byte from the host, or -1 while there is none.
int read();

// Returns when all bytes are on their way.
void write(const uint8_t *bytes, size_t count);

}  // namespace wire_port

#endif  // LAYERTAP_WIRE_PORT_H_
