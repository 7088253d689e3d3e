/* UART0 of the mps2-an385 that QEMU emulates. */
#ifndef UART_H_
#define UART_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void uart_start(void);
void uart_write(const uint8_t *bytes, size_t count);
/* Returns 1 when a byte was there. */
int uart_read(uint8_t *byte);

#ifdef __cplusplus
}
#endif

#endif
