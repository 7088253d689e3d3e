// @generated@
// The link to the host: the console's own port, below stdio, which would turn \n into \r\n.
#include "wire_port.h"

#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "sdkconfig.h"

#if CONFIG_ESP_CONSOLE_USB_SERIAL_JTAG
#include "driver/usb_serial_jtag.h"
#else
#include "driver/uart.h"
#endif

namespace {

constexpr TickType_t kPatience = pdMS_TO_TICKS(10);
constexpr int kReceiveBuffer = 4096;

}  // namespace

namespace wire_port {

#if CONFIG_ESP_CONSOLE_USB_SERIAL_JTAG

void start() {
  usb_serial_jtag_driver_config_t config = USB_SERIAL_JTAG_DRIVER_CONFIG_DEFAULT();
  config.rx_buffer_size = kReceiveBuffer;
  config.tx_buffer_size = kReceiveBuffer;
  ESP_ERROR_CHECK(usb_serial_jtag_driver_install(&config));
}

int read() {
  uint8_t byte;
  return usb_serial_jtag_read_bytes(&byte, 1, kPatience) == 1 ? byte : -1;
}

void write(const uint8_t *bytes, size_t count) {
  while (count > 0) {
    // What is larger than the driver's buffer is refused as a whole.
    const size_t piece = count < kReceiveBuffer / 2 ? count : kReceiveBuffer / 2;
    const int written = usb_serial_jtag_write_bytes(bytes, piece, kPatience);
    if (written > 0) {
      bytes += written;
      count -= static_cast<size_t>(written);
    }
  }
}

#else

void start() {
  constexpr auto port = static_cast<uart_port_t>(CONFIG_ESP_CONSOLE_UART_NUM);
  ESP_ERROR_CHECK(uart_driver_install(port, kReceiveBuffer, 0, 0, nullptr, 0));
}

int read() {
  constexpr auto port = static_cast<uart_port_t>(CONFIG_ESP_CONSOLE_UART_NUM);
  uint8_t byte;
  return uart_read_bytes(port, &byte, 1, kPatience) == 1 ? byte : -1;
}

void write(const uint8_t *bytes, size_t count) {
  // Without a transmit buffer the driver returns when all bytes are in the FIFO.
  uart_write_bytes(static_cast<uart_port_t>(CONFIG_ESP_CONSOLE_UART_NUM), bytes, count);
}

#endif

}  // namespace wire_port
