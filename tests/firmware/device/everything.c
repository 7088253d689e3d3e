/* Uses all of layertap.h: has to compile without a warning, and to link twice into one program. */
#include "layertap.h"
#include "layertap.h"

static uint8_t link_bytes[2048];
static size_t link_count;

static void put(void *sink, const uint8_t *bytes, size_t count) {
  (void)sink;
  memcpy(link_bytes + link_count, bytes, count);
  link_count += count;
}

static void send_all(layertap_encoder *encoder) {
  static const int dims[2] = {2, 3};
  static const float data[6] = {1, 2, 3, 4, 5, 6};
  static const uint8_t mask[1] = {1};
  const layertap_rule rule = {1, 1, LAYERTAP_HISTOGRAM, 4, 0, 0.0f, 8.0f};
  uint32_t room[4];
  layertap_hello hello;
  layertap_tensor tensor;
  memset(&hello, 0, sizeof hello);
  memset(&tensor, 0, sizeof tensor);
  hello.tensors = 1;
  hello.mask = mask;
  hello.name = "everything";
  tensor.dtype = LAYERTAP_FLOAT32;
  tensor.rank = 2;
  tensor.dims = dims;
  tensor.data = data;
  tensor.bytes = sizeof data;
  layertap_send_hello(encoder, &hello);
  layertap_send_tensor(encoder, &tensor);
  if (layertap_reduce(&rule, &tensor, room, 4) == LAYERTAP_OK)
    layertap_send_tensor(encoder, &tensor);
  layertap_send_done(encoder, 0, 0, 2, 2);
  layertap_send_answer(encoder, LAYERTAP_ASK, 0, LAYERTAP_CANNOT, "no");
}

/* How many frames come back through the receiver. */
int EVERYTHING(void) {
  static uint8_t buffer[256];
  layertap_encoder encoder;
  layertap_receiver receiver;
  layertap_command command;
  uint8_t mask[1] = {1};
  size_t i;
  int taken = 0;
  memset(&encoder, 0, sizeof encoder);
  memset(&receiver, 0, sizeof receiver);
  encoder.write = put;
  receiver.buffer = buffer;
  receiver.size = sizeof buffer;
  link_count = 0;
  send_all(&encoder);
  for (i = 0; i < link_count; ++i)
    taken += layertap_receive(&receiver, link_bytes[i], &command);
  if (layertap_set_mask(mask, 1, &command) == LAYERTAP_OK) return 0; /* it was no SELECT */
  return layertap_in_mask(mask, 0) ? taken : 0;
}
