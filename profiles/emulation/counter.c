/* A TCG plugin for qemu-user: which basic blocks the guest executed between two marks, how often, and what the
 * board's data caches would have missed of its memory accesses.
 *
 * Marks are system calls. getpgid(MAGIC + 1) starts counting, getpgid(MAGIC + 2) stops it, and between the two every
 * clock_gettime ends one region and starts the next: ONNX Runtime's profiler reads the clock before and after each
 * node. Output, one record a line:
 *   B id words...            a block's instruction words (hexadecimal), before its first use
 *   R kind loads stores (fills writebacks) x levels id:executions...
 * One thread is counted, the one that sets the marks: the runtime keeps others for its own ends.
 *
 * Prototypes are declared here because Debian ships no qemu-plugin.h; they follow QEMU's documented plugin API.
 * API is 1 for QEMU before 9.0, 2 for 9.0 and 3 from 9.1 (qemu_plugin_insn_data copies there).
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef API
#define API 1
#endif
#define EXPORT __attribute__((visibility("default")))
#define MAGIC 0x4b440000
enum { GETPGID = 155, CLOCK_GETTIME = 113, LEVELS = 3, LINE_BITS = 6 };

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int flags, void *);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, qemu_plugin_meminfo_t, uint64_t, void *), int flags, int rw, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);
#if API >= 3
extern size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
#else
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
#endif
EXPORT int qemu_plugin_version = API;

struct block { uint64_t runs, seen; uint32_t id, size; bool written; uint32_t words[]; };
static struct block **blocks;
static size_t block_count, block_room;
static char lock;
static bool counting;
static unsigned counted; /* the virtual processor, that is the guest's thread, that counts: who set the first mark */
static FILE *out;

/* A level's sets, most recently used way first; a line's lowest bit says that it was written to. */
struct cache { uint64_t *lines, sets, fills, writebacks; unsigned ways; };
static struct cache levels[LEVELS];
static unsigned level_count;
static uint64_t loads, stores;

static void touch(unsigned level, uint64_t line, bool store)
{
    if (level == level_count) return;
    struct cache *c = &levels[level];
    uint64_t *way = c->lines + (line % c->sets) * c->ways, key = (line + 1) << 1;
    unsigned at = 0;
    while (at + 1 < c->ways && (way[at] & ~1ull) != key) at++;
    uint64_t found = way[at];
    if ((found & ~1ull) != key) {
        c->fills++;
        if (found & 1) {
            c->writebacks++;
            touch(level + 1, (found >> 1) - 1, true);
        }
        found = key;
        touch(level + 1, line, false);
    }
    memmove(way + 1, way, at * sizeof *way);
    way[0] = found | store;
}

static void on_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    if (!counting || vcpu != counted) return;
    bool store = qemu_plugin_mem_is_store(info);
    *(store ? &stores : &loads) += 1;
    touch(0, address >> LINE_BITS, store);
}

static void on_block(unsigned vcpu, void *data)
{
    if (vcpu == counted) ((struct block *)data)->runs++;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t n = qemu_plugin_tb_n_insns(tb);
    struct block *b = calloc(1, sizeof *b + n * sizeof(uint32_t));
    b->size = n;
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
#if API >= 3
        qemu_plugin_insn_data(insn, &b->words[i], sizeof(uint32_t));
#else
        memcpy(&b->words[i], qemu_plugin_insn_data(insn), sizeof(uint32_t));
#endif
        if (level_count) qemu_plugin_register_vcpu_mem_cb(insn, on_access, 0, 3, NULL);
    }
    while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE)) {}
    if (block_count == block_room) {
        block_room = block_room ? 2 * block_room : 1 << 16;
        blocks = realloc(blocks, block_room * sizeof *blocks);
    }
    b->id = block_count;
    blocks[block_count++] = b;
    __atomic_clear(&lock, __ATOMIC_RELEASE);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, 0, b);
}

/* Writes what ran since the last mark, when `kind` names it, and starts anew. */
static void mark(const char *kind)
{
    for (size_t i = 0; kind && i < block_count; i++) {
        struct block *b = blocks[i];
        if (b->runs == b->seen || b->written) continue;
        b->written = true;
        fprintf(out, "B %" PRIu32, b->id);
        for (uint32_t k = 0; k < b->size; k++) fprintf(out, " %" PRIx32, b->words[k]);
        fputc('\n', out);
    }
    if (kind) fprintf(out, "R %s %" PRIu64 " %" PRIu64, kind, loads, stores);
    for (unsigned k = 0; k < LEVELS; k++) {
        if (kind) fprintf(out, " %" PRIu64 " %" PRIu64, levels[k].fills, levels[k].writebacks);
        levels[k].fills = levels[k].writebacks = 0;
    }
    for (size_t i = 0; i < block_count; i++) {
        struct block *b = blocks[i];
        if (kind && b->runs != b->seen) fprintf(out, " %" PRIu32 ":%" PRIu64, b->id, b->runs - b->seen);
        b->seen = b->runs;
    }
    if (kind) fputc('\n', out);
    loads = stores = 0;
}

static void on_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    if (number == GETPGID && (a1 & ~0xfull) == MAGIC) {
        mark(counting ? "end" : NULL);
        counted = vcpu;
        counting = (a1 & 0xf) == 1;
        fflush(out);
    } else if (counting && vcpu == counted && number == CLOCK_GETTIME) {
        mark("clock");
    }
}

/* Arguments: out=FILE, then for each data cache, the nearest first, cache=BYTES:WAYS. */
EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        unsigned long long bytes;
        unsigned ways;
        if (!strncmp(argv[i], "out=", 4)) {
            out = fopen(argv[i] + 4, "w");
        } else if (level_count < LEVELS && sscanf(argv[i], "cache=%llu:%u", &bytes, &ways) == 2 && ways && bytes >> LINE_BITS >= ways) {
            struct cache *c = &levels[level_count++];
            c->ways = ways;
            c->sets = (bytes >> LINE_BITS) / ways;
            c->lines = calloc(c->sets * ways, sizeof *c->lines);
        } else {
            return 1;
        }
    }
    if (!out) return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
