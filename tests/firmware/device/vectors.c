/* Compares layertap.h with the golden vectors, byte for byte, both ways.
 *
 *   vectors docs/wire-v1.txt     prints how many vectors of each kind it compared */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layertap.h"

enum { LINE = 20001, FIELDS = 24, WIRE = 1 << 17 };

typedef struct {
  char line[LINE];
  char *kind;
  char *keys[FIELDS], *values[FIELDS];
  int fields;
} vector;

typedef struct {
  uint8_t bytes[WIRE];
  size_t count;
} buffer;

static vector current;
static buffer expected, sent;
static int wrong;

static void complain(const char *what) {
  printf("%s %s: %s\n", current.kind, current.fields ? current.values[0] : "", what);
  wrong = 1;
}

static void put(void *sink, const uint8_t *bytes, size_t count) {
  buffer *into = (buffer *)sink;
  if (count == 0 || count > sizeof into->bytes - into->count) abort();
  memcpy(into->bytes + into->count, bytes, count);
  into->count += count;
}

static const char *text(const char *key) {
  for (int i = 0; i < current.fields; ++i)
    if (strcmp(current.keys[i], key) == 0) return current.values[i];
  complain(key);
  return "";
}

static uint32_t number(const char *key) { return (uint32_t)strtoul(text(key), NULL, 10); }

static size_t hex(const char *digits, uint8_t *bytes) {
  size_t count = 0;
  unsigned value;
  for (; sscanf(digits, "%2x", &value) == 1; digits += 2) bytes[count++] = (uint8_t)value;
  return count;
}

/* The bytes of a field, in memory of exactly their size, so that a read past them is noticed. */
static uint8_t *bytes(const char *key, size_t *count) {
  const char *digits = text(key);
  uint8_t *found = (uint8_t *)malloc(strlen(digits) / 2 + 1), *exact;
  if (!found) abort();
  *count = hex(digits, found);
  exact = (uint8_t *)malloc(*count ? *count : 1);
  if (!exact) abort();
  memcpy(exact, found, *count);
  free(found);
  return exact;
}

static char *string(const char *key) {
  size_t count;
  uint8_t *found = bytes(key, &count);
  char *ended = (char *)calloc(count + 1, 1);
  if (!ended) abort();
  memcpy(ended, found, count);
  free(found);
  return ended;
}

static float f32(const char *key) {
  uint8_t little[4] = {0};
  float value;
  hex(text(key), little);
  memcpy(&value, little, sizeof value);
  return value;
}

static int same_bytes(const uint8_t *a, size_t count, const char *key) {
  size_t wanted;
  uint8_t *b = bytes(key, &wanted);
  const int same = count == wanted && (count == 0 || memcmp(a, b, count) == 0);
  free(b);
  return same;
}

static void send_hello(layertap_encoder *encoder) {
  size_t mask_bytes;
  uint8_t *mask = bytes("mask", &mask_bytes);
  char *name = string("name");
  layertap_hello hello = {(uint8_t)number("reason"), number("able"), number("receive"),
                          number("rules"),           number("model"), number("size"),
                          number("tensors"),         number("arena"), number("used"),
                          number("every"),           name,            mask};
  layertap_send_hello(encoder, &hello);
  free(name);
  free(mask);
}

static void send_tensor(layertap_encoder *encoder) {
  layertap_tensor tensor;
  size_t count;
  uint8_t *data = bytes("data", &count);
  int dims[16];
  char list[256], *next = list;
  memset(&tensor, 0, sizeof tensor);
  snprintf(list, sizeof list, "%s", text("dims"));
  while (*next && tensor.rank < 16) {
    dims[tensor.rank++] = (int)(uint32_t)strtoul(next, &next, 10);
    if (*next == ',') ++next;
  }
  tensor.inference = number("inference");
  tensor.subgraph = number("subgraph");
  tensor.tensor = number("tensor");
  tensor.iteration = number("iteration");
  tensor.dtype = (uint8_t)number("dtype");
  tensor.form = (uint8_t)number("form");
  tensor.dims = dims;
  tensor.first = number("first");
  tensor.count = number("count");
  tensor.low = f32("low");
  tensor.high = f32("high");
  tensor.data = data;
  tensor.bytes = (uint32_t)count;
  layertap_send_tensor(encoder, &tensor);
  free(data);
}

static void send_answer(layertap_encoder *encoder) {
  char *why = string("text");
  layertap_send_answer(encoder, (uint8_t)number("command"), (uint8_t)number("of"),
                       (uint8_t)number("status"), why);
  free(why);
}

static void check_sent(void) {
  layertap_encoder encoder;
  memset(&encoder, 0, sizeof encoder);
  encoder.write = put;
  encoder.sink = &sent;
  encoder.sequence = (uint8_t)number("sequence");
  sent.count = 0;
  if (strcmp(current.kind, "hello") == 0) send_hello(&encoder);
  if (strcmp(current.kind, "tensor") == 0) send_tensor(&encoder);
  if (strcmp(current.kind, "answer") == 0) send_answer(&encoder);
  if (strcmp(current.kind, "done") == 0)
    layertap_send_done(&encoder, number("inference"), (uint8_t)number("status"),
                       number("tensors"), number("frames"));
  if (sent.count != expected.count || memcmp(sent.bytes, expected.bytes, sent.count) != 0)
    complain("other bytes were sent");
}

/* How many commands come out of the expected frames, with a buffer of exactly that size. */
static int received(uint32_t size, layertap_command *command, uint8_t **memory) {
  layertap_receiver receiver;
  int whole = 0;
  memset(&receiver, 0, sizeof receiver);
  *memory = receiver.buffer = (uint8_t *)malloc(size ? size : 1);
  receiver.size = size;
  for (size_t i = 0; i < expected.count; ++i)
    whole += layertap_receive(&receiver, expected.bytes[i], command);
  return whole;
}

static int same_rule(const layertap_rule *rule) {
  const float low = f32("low"), high = f32("high");
  return rule->tap == number("tap") && rule->every == number("every") &&
         rule->form == number("form") && rule->a == number("a") && rule->b == number("b") &&
         memcmp(&rule->low, &low, sizeof low) == 0 && memcmp(&rule->high, &high, sizeof high) == 0;
}

static int same_command(const layertap_command *command) {
  switch (command->type) {
    case LAYERTAP_ASK:
      return strcmp(current.kind, "ask") == 0;
    case LAYERTAP_SELECT:
      return strcmp(current.kind, "select") == 0 && command->select.every == number("every") &&
             command->select.first == number("first") &&
             same_bytes(command->select.mask, command->select.count, "mask");
    case LAYERTAP_RULE:
      return strcmp(current.kind, "rule") == 0 && same_rule(&command->rule);
    case LAYERTAP_INPUT:
      return strcmp(current.kind, "input") == 0 && command->input.input == number("input") &&
             command->input.offset == number("offset") &&
             same_bytes(command->input.data, command->input.count, "data");
    case LAYERTAP_RUN:
      return strcmp(current.kind, "run") == 0 && command->run.inference == number("inference") &&
             command->run.flags == number("flags") && command->run.check == number("check");
    default:
      return 0;
  }
}

/* With a buffer that just holds content and CRC it is taken; with one byte less it is dropped. */
static void check_received(void) {
  layertap_command command;
  uint8_t *memory;
  uint32_t size = 0;
  while (size < expected.count && !received(size, &command, &memory)) {
    free(memory);
    ++size;
  }
  if (size == expected.count) {
    complain("it was not received");
    return;
  }
  if (command.sequence != number("sequence") || !same_command(&command))
    complain("something else was received");
  free(memory);
  /* A short frame is its content and CRC, one byte of stuffing, and 00 F5 .. 00. */
  if (expected.count < 258 && size + 4 != expected.count) complain("it needs more memory or less");
}

static void check_refused(void) {
  layertap_command command;
  uint8_t *memory;
  /* What only a board sends is not known to a board, which answers that it cannot do it. */
  if (received(WIRE, &command, &memory) && command.type >= LAYERTAP_ASK)
    complain("it was received");
  free(memory);
}

static int compare(void) {
  if (strcmp(current.kind, "tensor") == 0 && number("piece") != LAYERTAP_PIECE) return 0;
  if (strstr("hello tensor done answer", current.kind))
    check_sent();
  else if (strstr("ask select rule input run", current.kind))
    check_received();
  else
    check_refused();
  return 1;
}

static void split(void) {
  char *word;
  current.line[strcspn(current.line, "\r\n")] = 0;
  current.kind = strtok(current.line, " ");
  current.fields = 0;
  while ((word = strtok(NULL, " ")) && current.fields < FIELDS) {
    char *value = strchr(word, '=');
    if (!value) continue;
    *value = 0;
    current.keys[current.fields] = word;
    current.values[current.fields++] = value + 1;
  }
}

int main(int count, char **arguments) {
  static char line[LINE];
  static const char *kinds[] = {"hello", "tensor", "done",  "answer", "ask",
                                "select", "rule",  "input", "run",    "bad"};
  int compared[10] = {0};
  FILE *file = count == 2 ? fopen(arguments[1], "r") : NULL;
  int more = file != NULL, pending = 0;
  if (!file) return 2;
  while (more) {
    more = fgets(line, sizeof line, file) != NULL;
    if (more && line[0] == '=') {
      expected.count += hex(line + 2, expected.bytes + expected.count);
      continue;
    }
    if (pending && compare())
      for (int i = 0; i < 10; ++i) compared[i] += strcmp(current.kind, kinds[i]) == 0;
    pending = more && line[0] != '#' && line[0] > ' ';
    if (!pending) continue;
    memcpy(current.line, line, sizeof line);
    split();
    expected.count = 0;
  }
  fclose(file);
  for (int i = 0; i < 10; ++i) printf("%s %d\n", kinds[i], compared[i]);
  return wrong;
}
