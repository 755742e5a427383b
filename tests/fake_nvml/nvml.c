/* A libnvidia-ml.so.1 without a driver: it answers what its script says (see __init__.py), and what the script leaves
 * out is not supported. Built with OLD_DRIVER it lacks the functions that came after 2021. */
#define _GNU_SOURCE
#include "abi.h"
#include "script.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_GPUS 128
#define MAX_INSTANCES 8
#define API __attribute__((visibility("default"))) nvmlReturn_t

static struct device boards[MAX_GPUS];
#ifndef OLD_DRIVER
static struct device instances[MAX_GPUS][MAX_INSTANCES];
#endif
static int initialised;
static long long generation;

static long long number_or(const char *text, long long otherwise) { return text ? script_number(text) : otherwise; }

static const char *of_call(const char *what, const char *function, int gpu) {
    const char *value = gpu >= 0 ? script_text("%s.%s.%d", what, function, gpu) : NULL;
    return value ? value : script_text("%s.%s", what, function);
}

/* What every function does first: it may hang, crash or fail. */
static nvmlReturn_t enter(const char *function, int gpu) {
    script_refresh();
    if (script_text("log")) script_log(function, gpu);
    for (long long bytes = number_or(script_text("chatter"), 0); bytes > 0 && gpu < 0; bytes -= 10) fputs("chatter!!\n", stdout);
    if (of_call("abort", function, gpu)) abort();
    for (const char *seconds; (seconds = of_call("hang", function, gpu)); script_refresh()) {
        double rest = script_real(seconds);
        usleep((useconds_t)((rest < 0.01 ? rest : 0.01) * 1e6));
        static __thread double slept;
        slept += 0.01;
        if (slept >= rest) { slept = 0; break; }
    }
    const char *code = of_call("error", function, gpu);
    if (code) return (nvmlReturn_t)script_number(code);
    if (gpu >= 0 && script_text("gpu.%d.lost", gpu)) return NVML_ERROR_GPU_IS_LOST;
    int opening = strcmp(function, "nvmlInitWithFlags") == 0;
    if (!opening && (!initialised || generation != number_or(script_text("generation"), 0)))
        return NVML_ERROR_UNINITIALIZED;
    return NVML_SUCCESS;
}

#define ENTER(gpu)                                   \
    do {                                             \
        nvmlReturn_t entered = enter(__func__, gpu); \
        if (entered != NVML_SUCCESS) return entered; \
    } while (0)

/* A value of a handle: gpu.N.<name>, or gpu.N.mig.M.<name>. */
static const char *of_device(nvmlDevice_t device, const char *name) {
    if (device->instance < 0) return script_text("gpu.%d.%s", device->gpu, name);
    return script_text("gpu.%d.mig.%d.%s", device->gpu, device->instance, name);
}

static nvmlReturn_t give_text(nvmlDevice_t device, const char *name, char *buffer, unsigned size) {
    const char *value = of_device(device, name);
    if (!value) return NVML_ERROR_NOT_SUPPORTED;
    snprintf(buffer, size, "%s", value);
    return NVML_SUCCESS;
}

static nvmlReturn_t give_unsigned(nvmlDevice_t device, const char *name, unsigned *to) {
    const char *value = of_device(device, name);
    if (!value) return NVML_ERROR_NOT_SUPPORTED;
    *to = (unsigned)script_number(value);
    return NVML_SUCCESS;
}

static nvmlReturn_t give_long(nvmlDevice_t device, const char *name, unsigned long long *to) {
    const char *value = of_device(device, name);
    if (!value) return NVML_ERROR_NOT_SUPPORTED;
    *to = (unsigned long long)script_number(value);
    return NVML_SUCCESS;
}

API nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    ENTER(-1);
    initialised = 1;
    generation = number_or(script_text("generation"), 0);
    return NVML_SUCCESS;
}

API nvmlShutdown(void) {
    ENTER(-1);
    initialised = 0;
    return NVML_SUCCESS;
}

__attribute__((visibility("default"))) const char *nvmlErrorString(nvmlReturn_t code) {
    static char text[64];
    snprintf(text, sizeof text, "error %d of the fake driver", code);
    return text;
}

API nvmlSystemGetDriverVersion(char *version, unsigned length) {
    ENTER(-1);
    const char *value = script_text("driver_version");
    if (!value) return NVML_ERROR_NOT_SUPPORTED;
    snprintf(version, length, "%s", value);
    return NVML_SUCCESS;
}

API nvmlDeviceGetCount_v2(unsigned *count) {
    ENTER(-1);
    *count = (unsigned)number_or(script_text("count"), 0);
    return NVML_SUCCESS;
}

API nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    ENTER((int)index);
    if (index >= MAX_GPUS || (long long)index >= number_or(script_text("count"), 0)) return NVML_ERROR_INVALID_ARGUMENT;
    boards[index] = (struct device){(int)index, -1};
    *device = &boards[index];
    return NVML_SUCCESS;
}

API nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length) {
    ENTER(device->gpu);
    return give_text(device, "uuid", uuid, length);
}

API nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
    ENTER(device->gpu);
    return give_text(device, "name", name, length);
}

API nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *minor) {
    ENTER(device->gpu);
    return give_unsigned(device, "minor", minor);
}

API nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    ENTER(device->gpu);
    memset(pci, 0, sizeof *pci);
    return give_text(device, "bus_id", pci->busId, sizeof pci->busId);
}

API nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    ENTER(device->gpu);
    nvmlReturn_t code = give_long(device, "memory_total", &memory->total);
    if (code == NVML_SUCCESS) code = give_long(device, "memory_used", &memory->used);
    /* The first version counts as used what the driver keeps for itself. */
    if (code == NVML_SUCCESS) memory->used += (unsigned long long)number_or(of_device(device, "memory_reserved"), 0);
    return code;
}

#ifndef OLD_DRIVER
API nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    ENTER(device->gpu);
    if (memory->version != NVML_MEMORY_V2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t code = give_long(device, "memory_total", &memory->total);
    return code == NVML_SUCCESS ? give_long(device, "memory_used", &memory->used) : code;
}
#endif

API nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    ENTER(device->gpu);
    nvmlReturn_t code = give_unsigned(device, "utilization", &rates->gpu);
    return code == NVML_SUCCESS ? give_unsigned(device, "memory_utilization", &rates->memory) : code;
}

API nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *degrees) {
    ENTER(device->gpu);
    return sensor == 0 ? give_unsigned(device, "temperature", degrees) : NVML_ERROR_INVALID_ARGUMENT;
}

API nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature) {
    ENTER(device->gpu);
    return give_unsigned(device, "temperature", (unsigned *)&temperature->temperature);
}

API nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned kind, unsigned *megahertz) {
    ENTER(device->gpu);
    char name[32];
    snprintf(name, sizeof name, "clock.%u", kind);
    return give_unsigned(device, name, megahertz);
}

#ifdef OLD_DRIVER
API nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons) {
#else
API nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons) {
#endif
    ENTER(device->gpu);
    return give_long(device, "throttle", reasons);
}

API nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) {
    ENTER(device->gpu);
    return give_unsigned(device, "power", milliwatts);
}

API nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *milliwatts) {
    ENTER(device->gpu);
    return give_unsigned(device, "power_limit", milliwatts);
}

API nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules) {
    ENTER(device->gpu);
    return give_long(device, "energy", millijoules);
}

API nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned kind, unsigned counter, unsigned long long *count) {
    ENTER(device->gpu);
    char name[32];
    snprintf(name, sizeof name, "ecc.%u.%u", kind, counter);
    return give_long(device, name, count);
}

API nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    ENTER(device->gpu);
    const char *rows = of_device(device, "remapped");
    if (!rows || sscanf(rows, "%u,%u,%u,%u", corrected, uncorrected, pending, failed) != 4) return NVML_ERROR_NOT_SUPPORTED;
    return NVML_SUCCESS;
}

static void give_field(nvmlDevice_t device, nvmlFieldValue_t *field) {
    char name[64];
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    field->timestamp = number_or(script_text("timestamp"), time.tv_sec * 1000000LL + time.tv_nsec / 1000);
    snprintf(name, sizeof name, "fielderror.%u", field->fieldId);
    const char *error = of_device(device, name);
    snprintf(name, sizeof name, "field.%u.%u", field->fieldId, field->scopeId);
    const char *value = of_device(device, name);
    if (error || !value) {
#ifdef OLD_DRIVER
        field->nvmlReturn = NVML_ERROR_INVALID_ARGUMENT;
#else
        field->nvmlReturn = error ? (nvmlReturn_t)script_number(error) : NVML_ERROR_NOT_SUPPORTED;
#endif
        return;
    }
    field->nvmlReturn = NVML_SUCCESS;
    field->valueType = NVML_TYPE_UNSIGNED_LONG_LONG;
    field->value.ull = (unsigned long long)script_number(value);
    if (strncmp(value, "uint:", 5) == 0) {
        field->valueType = 1;
        field->value.ui = (unsigned)script_number(value + 5);
    }
    if (strncmp(value, "newtype:", 8) == 0) field->valueType = 99;
}

API nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *fields) {
    ENTER(device->gpu);
    for (int number = 0; number < count; number++) give_field(device, &fields[number]);
    return NVML_SUCCESS;
}

/* "pid:bytes,pid:bytes"; without bytes the memory is not told, as on Windows and in some containers. */
static nvmlReturn_t give_processes(nvmlDevice_t device, const char *name, unsigned *room, nvmlProcessInfo_t *processes) {
    const char *at = of_device(device, name);
    if (!at) return NVML_ERROR_NOT_SUPPORTED;
    unsigned count = 0;
    for (char *end; *at; at = *end == ',' ? end + 1 : end) {
        nvmlProcessInfo_t process = {(unsigned)strtoul(at, &end, 10), ~0ULL, ~0U, ~0U};
        if (end == at) break;
        if (*end == ':') process.usedGpuMemory = strtoull(end + 1, &end, 10);
        if (count < *room && processes) processes[count] = process;
        count++;
    }
    nvmlReturn_t code = count > (processes ? *room : 0) ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
    *room = count;
    return code;
}

#ifdef OLD_DRIVER
API nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *processes) {
#else
API nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *processes) {
#endif
    ENTER(device->gpu);
    return give_processes(device, "processes", count, processes);
}

API nvmlEventSetCreate(long long **set) {
    ENTER(-1);
    *set = calloc(1, sizeof **set);
    const char *key, *value;
    for (size_t at = 0; script_entry(at, &key, &value); at++)
        if (strncmp(key, "xid.", 4) == 0 && strtoll(key + 4, NULL, 10) > **set) **set = strtoll(key + 4, NULL, 10);
    return NVML_SUCCESS;
}

API nvmlEventSetFree(long long *set) {
    ENTER(-1);
    free(set);
    return NVML_SUCCESS;
}

API nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types) {
    ENTER(device->gpu);
    return give_long(device, "event_types", types);
}

API nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, long long *set) {
    ENTER(device->gpu);
    return set && types == NVML_EVENT_XID ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

/* "xid.SERIAL GPU CODE GPU_INSTANCE COMPUTE_INSTANCE": told once, in the order of the serial numbers. */
API nvmlEventSetWait_v2(long long *set, nvmlEventData_t *event, unsigned milliseconds) {
    ENTER(-1);
    (void)milliseconds;
    const char *line = script_text("xid.%lld", *set + 1);
    unsigned gpu, code, gpu_instance, compute_instance;
    if (!line || sscanf(line, "%u %u %u %u", &gpu, &code, &gpu_instance, &compute_instance) != 4 || gpu >= MAX_GPUS)
        return NVML_ERROR_TIMEOUT;
    ++*set;
    *event = (nvmlEventData_t){&boards[gpu], NVML_EVENT_XID, code, gpu_instance, compute_instance};
    return NVML_SUCCESS;
}

#ifndef OLD_DRIVER
API nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *processes) {
    ENTER(device->gpu);
    return give_processes(device, "mps", count, processes);
}

API nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    ENTER(device->gpu);
    nvmlReturn_t code = give_unsigned(device, "mig", current);
    *pending = *current;
    return code;
}

API nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count) {
    ENTER(device->gpu);
    *count = 7;
    return NVML_SUCCESS;
}

API nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index, nvmlDevice_t *instance) {
    ENTER(device->gpu);
    if (index >= MAX_INSTANCES || !script_text("gpu.%d.mig.%u.uuid", device->gpu, index)) return NVML_ERROR_NOT_FOUND;
    instances[device->gpu][index] = (struct device){device->gpu, (int)index};
    *instance = &instances[device->gpu][index];
    return NVML_SUCCESS;
}

API nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned *is_instance) {
    ENTER(device->gpu);
    *is_instance = device->instance >= 0;
    return NVML_SUCCESS;
}

API nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t instance, nvmlDevice_t *device) {
    ENTER(instance->gpu);
    boards[instance->gpu] = (struct device){instance->gpu, -1};
    *device = &boards[instance->gpu];
    return NVML_SUCCESS;
}

API nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    ENTER(-1);
    for (int gpu = 0; gpu < MAX_GPUS && gpu < number_or(script_text("count"), 0); gpu++) {
        for (int number = -1; number < MAX_INSTANCES; number++) {
            struct device *candidate = number < 0 ? &boards[gpu] : &instances[gpu][number];
            *candidate = (struct device){gpu, number};
            const char *own = of_device(candidate, "uuid");
            if (!own || strcmp(own, uuid) != 0) continue;
            *device = candidate;
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

API nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned kind, unsigned *megahertz) {
    ENTER(device->gpu);
    char name[32];
    snprintf(name, sizeof name, "max_clock.%u", kind);
    return give_unsigned(device, name, megahertz);
}

API nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned *id) {
    ENTER(device->gpu);
    return give_unsigned(device, "gpu_instance", id);
}

API nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned *id) {
    ENTER(device->gpu);
    return give_unsigned(device, "compute_instance", id);
}

API nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes) {
    ENTER(device->gpu);
    memset(attributes, 0, sizeof *attributes);
    return give_unsigned(device, "multiprocessors", &attributes->multiprocessorCount);
}

API nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned profile, nvmlGpuInstanceProfileInfo_v2_t *info) {
    ENTER(device->gpu);
    if (info->version != 0x02000098U) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    char name[32];
    snprintf(name, sizeof name, "profile.%u", profile);
    return give_unsigned(device, name, &info->multiprocessorCount);
}

API nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *support) {
    ENTER(device->gpu);
    return give_unsigned(device, "gpm", &support->isSupportedDevice);
}

API nvmlGpmSampleAlloc(struct gpm_sample **sample) {
    ENTER(-1);
    *sample = calloc(1, sizeof **sample);
    return NVML_SUCCESS;
}

API nvmlGpmSampleFree(struct gpm_sample *sample) {
    ENTER(-1);
    free(sample);
    return NVML_SUCCESS;
}

API nvmlGpmSampleGet(nvmlDevice_t device, struct gpm_sample *sample) {
    ENTER(device->gpu);
    *sample = (struct gpm_sample){device, seconds_since_loading()};
    return NVML_SUCCESS;
}

API nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned gpu_instance, struct gpm_sample *sample) {
    ENTER(device->gpu);
    for (int number = 0; number < MAX_INSTANCES; number++) {
        const char *id = script_text("gpu.%d.mig.%d.gpu_instance", device->gpu, number);
        if (!id || script_number(id) != (long long)gpu_instance) continue;
        *sample = (struct gpm_sample){&instances[device->gpu][number], seconds_since_loading()};
        return NVML_SUCCESS;
    }
    return NVML_ERROR_INVALID_ARGUMENT;
}

/* Only two samples of one device, the older first, make an interval. */
API nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *question) {
    ENTER(-1);
    const struct gpm_sample *first = question->sample1, *second = question->sample2;
    if (question->version != 1 || first->device != second->device || second->seconds <= first->seconds)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned number = 0; number < question->numMetrics; number++) {
        nvmlGpmMetric_t *metric = &question->metrics[number];
        char name[32];
        snprintf(name, sizeof name, "gpm.%u", metric->metricId);
        const char *value = of_device(second->device, name);
        metric->nvmlReturn = value ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
        metric->value = value ? script_real(value) : 0;
    }
    return NVML_SUCCESS;
}
#endif
