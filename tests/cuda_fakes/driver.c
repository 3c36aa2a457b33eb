// A libcuda.so.1 that says what the environment tells it to, for tests of the loader: FAKE_VERSION
// (13000), FAKE_INIT (an error of cuInit), FAKE_DEVICES ("75:Tesla T4,90:H100", may be empty).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number(const char* name, int otherwise) {
  const char* text = getenv(name);
  return text ? atoi(text) : otherwise;
}

// Start of device i's entry, or null.
static const char* entry(int i) {
  const char* at = getenv("FAKE_DEVICES");
  if (!at || !*at) return NULL;
  for (; i > 0 && at; --i) {
    at = strchr(at, ',');
    if (at) ++at;
  }
  return at;
}

int cuDriverGetVersion(int* version) {
  *version = number("FAKE_VERSION", 13000);
  return 0;
}
int cuInit(unsigned flags) {
  fputs("cuInit was called\n", stderr);
  return flags ? 1 : number("FAKE_INIT", 0);
}
int cuGetErrorString(int error, const char** text) {
  *text = error == 999 ? "unknown error" : NULL;
  return *text ? 0 : 1;
}
int cuDeviceGetCount(int* count) {
  for (*count = 0; entry(*count);) ++*count;
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return 0;
}
int cuDeviceGetName(char* name, int capacity, int device) {
  const char* from = strchr(entry(device), ':') + 1;
  snprintf(name, (size_t)capacity, "%.*s", (int)strcspn(from, ","), from);
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  const int capability = atoi(entry(device));
  *value = attribute == 75 ? capability / 10 : capability % 10;
  return 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) {
  *bytes = (size_t)(device + 1) << 30;
  return 0;
}
