/* What a firmware that only sends is made of, for sizes.py. */
#include "layertap.h"

layertap_encoder encoder;

void hello(const layertap_hello *what) { layertap_send_hello(&encoder, what); }

uint32_t tensor(const layertap_tensor *what) { return layertap_send_tensor(&encoder, what); }

void done(uint32_t inference, uint8_t status, uint32_t tensors, uint32_t frames) {
  layertap_send_done(&encoder, inference, status, tensors, frames);
}

void answer(uint8_t command, uint8_t of, uint8_t status, const char *text) {
  layertap_send_answer(&encoder, command, of, status, text);
}
