/* Start-up of a Cortex-M3, and the few system calls that newlib wants. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "uart.h"

extern uint8_t data_start[], data_end[], data_load[], bss_start[], bss_end[];
extern uint8_t heap_start[], heap_end[];
void stack_top(void); /* an address only; a function, because the vectors hold those */

int main(void);
void __libc_init_array(void);
void *__dso_handle = NULL; /* destructors of statics are registered for it, and never run */
void _init(void) {}
void _fini(void) {}

static void stop(void) {
  for (;;) __asm__ volatile("wfi");
}

void reset(void);
void reset(void) {
  memcpy(data_start, data_load, (size_t)(data_end - data_start));
  memset(bss_start, 0, (size_t)(bss_end - bss_start));
  __libc_init_array();
  main();
  stop();
}

/* A line on the UART, because a fault that nobody hears looks like a silent board. */
static void fault(void) {
  static const char text[] = "\r\nprocessor fault\r\n";
  uart_write((const uint8_t *)text, sizeof text - 1);
  stop();
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    stack_top, reset, fault, fault, fault, fault, fault, NULL,
    NULL, NULL, NULL, fault, fault, NULL, fault, fault};

/* printf goes to the UART, between frames. */
int _write(int file, const char *text, int count) {
  (void)file;
  uart_write((const uint8_t *)text, (size_t)count);
  return count;
}

void *_sbrk(ptrdiff_t bytes) {
  static uint8_t *next = heap_start;
  uint8_t *const given = next;
  if (bytes > heap_end - next) return (void *)-1;
  next += bytes;
  return given;
}

void _exit(int code) {
  (void)code;
  stop();
  for (;;) {
  }
}

int _close(int file) { return (void)file, -1; }
int _read(int file, char *text, int count) { return (void)file, (void)text, (void)count, 0; }
int _lseek(int file, int offset, int from) { return (void)file, (void)offset, (void)from, 0; }
int _isatty(int file) { return (void)file, 1; }
int _fstat(int file, void *about) { return (void)file, (void)about, -1; }
int _kill(int process, int signal) { return (void)process, (void)signal, -1; }
int _getpid(void) { return 1; }
