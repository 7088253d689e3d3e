/* Feeds random, mutated and cut streams to the receiver, in memory of exactly the size it was told.
 * The sanitizers watch; after each stream a good command must come through.
 *
 *   fuzz FRAMES ROUNDS SEED      FRAMES: a file of good frames, 00 F5 .. 00 each */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layertap.h"

enum { FRAMES = 1 << 20, STREAM = 1 << 14 };

static uint8_t frames[FRAMES], stream[STREAM];
static uint32_t random_state;
static volatile uint32_t seen; /* keeps the reads of what was received */

static uint32_t random_below(uint32_t limit) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state % limit;
}

/* A piece of the good frames, then some bytes changed, left out or put in. */
static size_t make_stream(size_t held) {
  size_t count = random_below(600), start = random_below((uint32_t)(held - count));
  uint32_t changes = random_below(6);
  memcpy(stream, frames + start, count);
  if (random_below(8) == 0)
    for (size_t i = 0; i < count; ++i) stream[i] = (uint8_t)random_below(256);
  while (changes-- && count > 2 && count < 1000) {
    const size_t at = random_below((uint32_t)count);
    switch (random_below(4)) {
      case 0:
        stream[at] = (uint8_t)random_below(256);
        break;
      case 1:
        memmove(stream + at, stream + at + 1, --count - at);
        break;
      case 2:
        memmove(stream + at + 1, stream + at, count++ - at);
        break;
      default:
        stream[at] ^= (uint8_t)(1 << random_below(8));
    }
  }
  return count;
}

static void read_all(const uint8_t *bytes, uint32_t count) {
  while (count--) seen += *bytes++;
}

static void use(const layertap_command *command) {
  seen += command->sequence + command->run.check + command->rule.tap;
  if (command->type == LAYERTAP_SELECT) {
    uint8_t mask[3];
    layertap_set_mask(mask, sizeof mask, command);
    read_all(command->select.mask, command->select.count);
  }
  if (command->type == LAYERTAP_INPUT) read_all(command->input.data, command->input.count);
}

static void append(void *sink, const uint8_t *bytes, size_t count) {
  memcpy(stream + *(size_t *)sink, bytes, count);
  *(size_t *)sink += count;
}

/* Content of random bytes whose CRC is right: the parser has to cope with it alone. */
static size_t make_content(size_t count) {
  static const uint8_t types[] = {1, 65, 66, 67, 68, 69, 70};
  layertap_encoder encoder;
  layertap_header header;
  uint32_t i, length = random_below(40);
  memset(&encoder, 0, sizeof encoder);
  encoder.write = append;
  encoder.sink = &count;
  layertap_begin(&header, types[random_below(sizeof types)]);
  for (i = 0; i < length; ++i)
    layertap_put_u8(&header, random_below(3) ? random_below(256) : random_below(2) * 127);
  layertap_send(&encoder, &header, NULL, 0);
  return count;
}

static size_t make_ask(void) {
  layertap_encoder encoder;
  layertap_header header;
  size_t count = 0;
  memset(&encoder, 0, sizeof encoder);
  encoder.write = append;
  encoder.sink = &count;
  layertap_begin(&header, LAYERTAP_ASK);
  layertap_send(&encoder, &header, NULL, 0);
  return count;
}

/* How many commands come out of the stream. */
static int receive(layertap_receiver *receiver, size_t count) {
  layertap_command command;
  int taken = 0;
  for (size_t i = 0; i < count; ++i) {
    if (!layertap_receive(receiver, stream[i], &command)) continue;
    use(&command);
    ++taken;
  }
  return taken;
}

static int survives(size_t held) {
  layertap_receiver receiver;
  int taken;
  memset(&receiver, 0, sizeof receiver);
  receiver.size = random_below(3) ? 6 + random_below(120) : random_below(6);
  receiver.buffer = (uint8_t *)malloc(receiver.size ? receiver.size : 1);
  if (!receiver.buffer) abort();
  receive(&receiver, make_content(make_stream(held)));
  taken = receive(&receiver, make_ask());
  free(receiver.buffer);
  return taken == (receiver.size >= 6); /* an ASK and its CRC */
}

int main(int count, char **arguments) {
  FILE *file = count == 4 ? fopen(arguments[1], "rb") : NULL;
  const size_t held = file ? fread(frames, 1, sizeof frames, file) : 0;
  if (held < 1000) return 2;
  fclose(file);
  random_state = (uint32_t)strtoul(arguments[3], NULL, 10) | 1;
  for (long rounds = strtol(arguments[2], NULL, 10); rounds; --rounds) {
    if (!survives(held)) {
      printf("a good command was lost, %ld rounds before the end\n", rounds);
      return 1;
    }
  }
  return 0;
}
