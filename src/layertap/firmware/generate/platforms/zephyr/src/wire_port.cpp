// @generated@
// The link to the host: the console's UART. Received bytes are gathered by its interrupt, since a
// UART of few bytes would lose them while the model runs.
#include "wire_port.h"

#include <zephyr/device.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/kernel.h>
#include <zephyr/sys/ring_buffer.h>

namespace {

const device *const uart = DEVICE_DT_GET(DT_CHOSEN(zephyr_console));

uint8_t buffer[1024];
ring_buf received;
k_sem arrived;

void on_interrupt(const device *port, void *) {
  while (uart_irq_update(port) > 0 && uart_irq_rx_ready(port) > 0) {
    uint8_t bytes[16];
    const int count = uart_fifo_read(port, bytes, sizeof bytes);
    if (count <= 0) break;
    ring_buf_put(&received, bytes, static_cast<uint32_t>(count));
  }
  k_sem_give(&arrived);
}

}  // namespace

namespace wire_port {

void start() {
  ring_buf_init(&received, sizeof buffer, buffer);
  k_sem_init(&arrived, 0, 1);
  uart_irq_callback_set(uart, on_interrupt);
  uart_irq_rx_enable(uart);
}

int read() {
  uint8_t byte;
  if (ring_buf_get(&received, &byte, 1) == 1) return byte;
  k_sem_take(&arrived, K_MSEC(10));
  return ring_buf_get(&received, &byte, 1) == 1 ? byte : -1;
}

void write(const uint8_t *bytes, size_t count) {
  while (count-- > 0) uart_poll_out(uart, *bytes++);
}

}  // namespace wire_port
