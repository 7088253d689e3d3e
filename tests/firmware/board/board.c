/*
 * A board for tests: runs the model of an image (see image.h and tests/firmware/testboard.py, which
 * writes images and starts boards), sends its tensors and obeys its host, with layertap.h alone.
 *
 *   board IMAGE                          on this machine: speaks on stdin and stdout
 *   qemu-system-arm -M mps2-an385 -display none -monitor none -serial stdio -kernel board.elf
 *     -device loader,file=IMAGE,addr=0x21000000,force-raw=on      an emulated Cortex-M3
 */
#include "board.h"

#include <setjmp.h>
#include <string.h>

#include "interpreter.h"
#include "layertap.h"
#include "link.h"
#include "platform.h"

enum { MASK = 64, RULES = 8, ROOM = 1024, COMMAND = 65536 };

static const image_header *image;
static jmp_buf power_on;

/* What a reset forgets. */
static struct {
  layertap_encoder encoder;
  uint8_t mask[MASK];
  uint32_t every;
  layertap_rule rules[RULES];
  uint32_t rule_count;
  uint32_t inference, inferences;
  int awaited; /* the host started this inference and gets all of it */
  uint32_t tensors, frames; /* sent in this inference */
} board;

static uint8_t command_bytes[COMMAND];

static void say_hello(uint8_t reason) {
  const layertap_hello hello = {reason,          image->able,    image->receive, image->rules,
                                image->crc,      image->size,    image->tensors, image->arena,
                                image->used,     board.every,    image->name,    board.mask};
  layertap_send_hello(&board.encoder, &hello);
}

static const layertap_rule *rule_of(uint32_t bit) {
  for (uint32_t i = 0; i < board.rule_count; ++i)
    if (board.rules[i].tap == bit + 1) return &board.rules[i];
  return NULL;
}

static void send(const layertap_tensor *tensor) {
  board.frames += layertap_send_tensor(&board.encoder, tensor);
  ++board.tensors;
}

/* The interpreter has written a tensor. */
static void observe(uint32_t subgraph, uint32_t index) {
  static uint32_t room[ROOM];
  const image_tensor *meant = model_tensor(subgraph, (int32_t)index);
  const uint32_t bit = model_subgraph(subgraph)->first_tensor + index;
  const layertap_rule *rule = rule_of(bit);
  const uint32_t every = rule ? rule->every : board.every;
  layertap_tensor tensor;
  int dims[8];
  if (!layertap_in_mask(board.mask, bit)) return;
  if (!board.awaited && board.inference % every) return;
  for (int i = 0; i < 8; ++i) dims[i] = (int)meant->dims[i];
  memset(&tensor, 0, sizeof tensor);
  tensor.inference = board.inference;
  tensor.subgraph = subgraph;
  tensor.tensor = index;
  tensor.iteration = model_iteration(subgraph);
  tensor.dtype = (uint8_t)meant->dtype;
  tensor.rank = (uint8_t)meant->rank;
  tensor.dims = dims;
  tensor.data = model_data(subgraph, (int32_t)index);
  tensor.bytes = meant->bytes;
  if (!rule || layertap_reduce(rule, &tensor, room, ROOM) == LAYERTAP_OK) send(&tensor);
}

static void run(uint32_t inference) {
  const int fail = link_fault(FAIL, board.inferences) != NULL;
  int status;
  board.inference = inference;
  board.tensors = board.frames = 0;
  status = model_run(fail);
  layertap_send_done(&board.encoder, inference, (uint8_t)status, board.tensors, board.frames);
  if (image->chatter) link_text("inference done\r\n");
  if (++board.inferences % 16 == 0) say_hello(LAYERTAP_REPEATED);
}

static uint32_t check_of_inputs(void) {
  const image_subgraph *main_graph = model_subgraph(0);
  uint32_t crc = 0;
  for (uint32_t i = 0; i < main_graph->inputs; ++i) {
    const int32_t tensor = main_graph->input[i];
    crc = layertap_crc32(crc, model_data(0, tensor), model_tensor(0, tensor)->bytes);
  }
  return crc;
}

/* As an interpreter may, whose arena holds other tensors there by now. */
static void forget_inputs(void) {
  const image_subgraph *main_graph = model_subgraph(0);
  for (uint32_t i = 0; i < main_graph->inputs; ++i) {
    const int32_t tensor = main_graph->input[i];
    memset(model_data(0, tensor), 0xAA, model_tensor(0, tensor)->bytes);
  }
}

static uint8_t select_taps(const layertap_command *command) {
  const uint8_t status = layertap_set_mask(board.mask, (image->tensors + 7) / 8, command);
  if (status == LAYERTAP_OK) board.every = command->select.every;
  return status;
}

static uint8_t add_rule(const layertap_rule *rule) {
  layertap_rule *place = (layertap_rule *)rule_of(rule->tap - 1);
  if (rule->tap == 0) {
    board.rule_count = 0;
    return LAYERTAP_OK;
  }
  if (rule->tap > image->tensors || rule->every == 0) return LAYERTAP_OUT_OF_RANGE;
  if (rule->form > LAYERTAP_HISTOGRAM) return LAYERTAP_CANNOT;
  if (!place) {
    if (board.rule_count == image->rules || board.rule_count == RULES) return LAYERTAP_NO_ROOM;
    place = &board.rules[board.rule_count++];
  }
  *place = *rule;
  return LAYERTAP_OK;
}

static uint8_t take_input(const layertap_command *command) {
  const image_subgraph *main_graph = model_subgraph(0);
  const uint32_t offset = command->input.offset, count = command->input.count;
  int32_t tensor;
  uint32_t bytes;
  if (command->input.input >= main_graph->inputs) return LAYERTAP_OUT_OF_RANGE;
  tensor = main_graph->input[command->input.input];
  bytes = model_tensor(0, tensor)->bytes;
  if (offset > bytes || count > bytes - offset) return LAYERTAP_OUT_OF_RANGE;
  memcpy((uint8_t *)model_data(0, tensor) + offset, command->input.data, count);
  return LAYERTAP_OK;
}

static uint8_t run_once(const layertap_command *command) {
  if (check_of_inputs() != command->run.check) return LAYERTAP_INCOMPLETE;
  if (command->run.flags & LAYERTAP_RESET_STATE) model_reset_state();
  board.awaited = 1;
  run(command->run.inference);
  board.awaited = 0;
  forget_inputs();
  return LAYERTAP_OK;
}

/* Whether the board was built to take it. */
static int able(uint8_t type) {
  switch (type) {
    case LAYERTAP_SELECT:
      return (image->able & LAYERTAP_SELECTS) != 0;
    case LAYERTAP_RULE:
      return (image->able & LAYERTAP_RULES) != 0;
    case LAYERTAP_INPUT:
    case LAYERTAP_RUN:
      return (image->able & LAYERTAP_RUNS) != 0;
    default:
      return 0;
  }
}

static uint8_t carry_out(const layertap_command *command) {
  if (!able(command->type)) return LAYERTAP_CANNOT;
  switch (command->type) {
    case LAYERTAP_SELECT:
      return select_taps(command);
    case LAYERTAP_RULE:
      return add_rule(&command->rule);
    case LAYERTAP_INPUT:
      return take_input(command);
    default:
      return run_once(command);
  }
}

static void obey(const layertap_command *command) {
  const uint8_t type = command->type;
  uint8_t status;
  if (type == LAYERTAP_ASK) {
    say_hello(LAYERTAP_ASKED);
    return;
  }
  status = carry_out(command);
  if (status == LAYERTAP_OK && (type == LAYERTAP_INPUT || type == LAYERTAP_RUN)) return;
  layertap_send_answer(&board.encoder, type, command->sequence, status,
                       status == LAYERTAP_OUT_OF_RANGE ? "out of range" : NULL);
}

/* A board that runs on its own: element i of every input of inference n is (i + n) % 7 - 3. */
static void make_inputs(uint32_t inference) {
  const image_subgraph *main_graph = model_subgraph(0);
  for (uint32_t i = 0; i < main_graph->inputs; ++i) model_fill(main_graph->input[i], inference);
}

static void run_alone(layertap_receiver *receiver) {
  layertap_command command;
  uint8_t byte;
  for (uint32_t n = 0; image->runs == 0 || n < image->runs; ++n) {
    while (image->receive && link_read(&byte, 0) == 1)
      if (layertap_receive(receiver, byte, &command)) obey(&command);
    make_inputs(n);
    run(n);
    platform_pause(image->pause);
  }
}

static void listen(layertap_receiver *receiver) {
  layertap_command command;
  uint8_t byte;
  while (link_read(&byte, 1) == 1)
    if (layertap_receive(receiver, byte, &command)) obey(&command);
}

static void restart(void) { longjmp(power_on, 1); }

static void start(layertap_receiver *receiver) {
  memset(&board, 0, sizeof board);
  memset(receiver, 0, sizeof *receiver);
  receiver->buffer = command_bytes;
  receiver->size = image->receive < COMMAND ? image->receive : COMMAND;
  board.encoder.write = link_write;
  board.every = image->every;
  memcpy(board.mask, (const uint8_t *)image + image->mask_place, (image->tensors + 7) / 8);
  model_load(image, observe);
  link_started();
  if (image->chatter) link_text("booting\r\n");
  say_hello(LAYERTAP_STARTED);
}

void board_main(const image_header *header) {
  static layertap_receiver receiver;
  const fault_order *reboot;
  image = header;
  link_open(image, restart);
  if (setjmp(power_on)) link_text("");
  start(&receiver);
  while ((reboot = link_fault(REBOOT, 0)) != NULL) {
    platform_pause(reboot->byte);
    start(&receiver);
  }
  if (image->able & LAYERTAP_RUNS)
    listen(&receiver);
  else
    run_alone(&receiver);
  platform_leave(0);
}
