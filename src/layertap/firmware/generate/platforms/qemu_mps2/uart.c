/* Registers: Arm Cortex-M System Design Kit, APB UART. */
#include "uart.h"

#define UART0 ((volatile uint32_t *)0x40004000)

enum { DATA = 0, STATE = 1, CONTROL = 2, BAUD_DIVIDER = 4 };
enum { TRANSMIT_FULL = 1, RECEIVE_FULL = 2 };
enum { ENABLE_TRANSMIT = 1, ENABLE_RECEIVE = 2 };

void uart_start(void) {
  UART0[BAUD_DIVIDER] = 16; /* the least it takes; the emulator sends at once anyway */
  UART0[CONTROL] = ENABLE_TRANSMIT | ENABLE_RECEIVE;
}

void uart_write(const uint8_t *bytes, size_t count) {
  while (count--) {
    while (UART0[STATE] & TRANSMIT_FULL) {
    }
    UART0[DATA] = *bytes++;
  }
}

int uart_read(uint8_t *byte) {
  if (!(UART0[STATE] & RECEIVE_FULL)) return 0;
  *byte = (uint8_t)UART0[DATA];
  return 1;
}
