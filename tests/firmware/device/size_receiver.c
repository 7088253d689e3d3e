/* The way back, for sizes.py. */
#include "layertap.h"

layertap_receiver receiver;

int receive(uint8_t byte, layertap_command *command) {
  return layertap_receive(&receiver, byte, command);
}

uint8_t select_taps(uint8_t *mask, uint32_t bytes, const layertap_command *command) {
  return layertap_set_mask(mask, bytes, command);
}
