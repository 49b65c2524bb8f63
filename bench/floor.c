/* The bare client: it runs headrace's own scripts as fast as C with hiredis can, and does nothing else.
 *
 *   floor WHERE ping   BATCH OUT TOTAL
 *   floor WHERE submit BATCH OUT TOTAL TYPE SHA KEY
 *   floor WHERE drain  BATCH OUT TOTAL TYPE SHA KEY
 *   floor WHERE pace   GAP   1   TOTAL TYPE SHA KEY
 *   floor WHERE wait   BATCH 1   TOTAL TYPE SHA KEY
 *   floor WHERE plain-submit BATCH OUT TOTAL
 *   floor WHERE plain-drain  BATCH OUT TOTAL
 *
 * The plain ones use no script: XADD; then XACK, XDEL and SET EX of each task, and XREADGROUP, all in one pipeline a batch (OUT is not heeded). They keep no index, no history, no priorities
 * and no fence, so they stand for the machine and not for a queue.
 *
 * pace submits one task after every GAP ms; wait pops the marker, claims, and reports in a call of its own, as a worker whose handlers end later. Either prints the moments of its tasks
 * (before it sends, after it has claimed) in ns of the clock that all processes of a machine share.
 *
 * WHERE is the path of a Unix socket, or a port of the loopback address. BATCH tasks a call, OUT calls outstanding, TOTAL tasks (pings) in all. It prints one line of JSON. bench/floor.py
 * does the same, argument by argument, where there is no compiler. The scripts have to be loaded.
 */
#include <hiredis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { MAX_BATCH = 1000, PAYLOAD = 100, KEYS = 1, REPORT = 3, GROUP = 5, MAX_STREAMS = 6, HEAD = 3 };

static redisContext *redis;
static const char *type, *args[HEAD + KEYS + 8 + GROUP * MAX_STREAMS + REPORT * MAX_BATCH];
static size_t lengths[sizeof args / sizeof *args];
static int used, head;

static void fail(const char *format, ...) {
  va_list rest;
  va_start(rest, format);
  fputs("floor: ", stderr);
  vfprintf(stderr, format, rest);
  fputc('\n', stderr);
  exit(1);
}

static double seconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

static void add(const char *text, size_t length) {
  args[used] = text;
  lengths[used++] = length;
}

static void add_text(const char *text) { add(text, strlen(text)); }

/* What is sent lies in one arena per call; hiredis copies it when the call is formatted. */
static char arena[MAX_BATCH * 4096];
static size_t arena_used;

static char *keep(size_t *length, const char *format, ...) {
  va_list rest;
  char *text = arena + arena_used;
  va_start(rest, format);
  *length = (size_t)vsnprintf(text, sizeof arena - arena_used, format, rest);
  va_end(rest);
  arena_used += *length + 1;
  if (arena_used >= sizeof arena) fail("a batch of this size does not fit its buffer");
  return text;
}

static void begin(void) {
  used = head;
  arena_used = 0;
}

static void finish(void) {
  if (redisAppendCommandArgv(redis, used, args, lengths) != REDIS_OK) fail("%s", redis->errstr);
}

static redisReply *answer(void) {
  redisReply *reply = NULL;
  if (redisGetReply(redis, (void **)&reply) != REDIS_OK) fail("%s", redis->errstr);
  if (reply->type == REDIS_REPLY_ERROR) fail("%s", reply->str);
  return reply;
}

/* -- submissions: envelopes like those of headrace.task, with a payload of PAYLOAD bytes */

static unsigned long long state;

static unsigned long long next_random(void) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state;
}

static char *new_id(size_t *length) {
  unsigned long long a = next_random(), b = next_random();
  return keep(length, "%08llx-%04llx-4%03llx-a%03llx-%012llx", a >> 32, a >> 16 & 0xffff, a & 0xfff, b >> 52, b & 0xffffffffffffULL);
}

static char *envelope(size_t *length, const char *id, long number) {
  static char filler[PAYLOAD];
  size_t payload = (size_t)snprintf(NULL, 0, "{\"n\":%ld,\"text\":\"\"}", number);
  memset(filler, 'x', sizeof filler);
  return keep(length, "{\"v\":1,\"p\":1,\"i\":\"%.36s\",\"t\":\"%s\",\"c\":1764024000000,\"a\":{\"n\":%ld,\"text\":\"%.*s\"}}", id, type, number,
              (int)(PAYLOAD - payload), filler);
}

static void send_submit(long from, int count) {
  static char *ids[MAX_BATCH];
  size_t length;
  char *text;
  begin();
  add_text(""), add_text("0"), add_text("0"), add_text("1");
  for (int i = 0; i < count; i++) {
    ids[i] = new_id(&length);
    add(ids[i], length);
  }
  for (int i = 0; i < count; i++) {
    text = envelope(&length, ids[i], from + i);
    add(text, length);
  }
  finish();
}

static void take_submitted(int count) {
  redisReply *reply = answer();
  if (reply->elements != 1 || strspn(reply->element[0]->str, "n") != (size_t)count) fail("a submission was not new");
  freeReplyObject(reply);
}

static void submit(int batch, int out, long total) {
  long sent = 0, taken = 0;
  while (taken < total) {
    while (sent < total && sent - taken < (long)out * batch) {
      send_submit(sent, total - sent < batch ? (int)(total - sent) : batch);
      sent += batch;
    }
    take_submitted(total - taken < batch ? (int)(total - taken) : batch);
    taken += batch;
  }
}

/* -- the life of a worker: report what was claimed as completed, claim the next, in one call */

static const char *id_of(redisReply *claimed) {
  const char *id = strstr(claimed->str, "\"i\":\"");
  if (!id || claimed->len < 60) fail("an envelope of an unknown form");
  return id + 5;
}

static void add_record(const char *digit, redisReply *entry, redisReply *claimed) {
  size_t length;
  char *text;
  static struct timespec now;
  long long ms;
  clock_gettime(CLOCK_REALTIME, &now);
  ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
  text = keep(&length, "completed %zu\n%s1,0,0,0\n{\"p\":\"%s%s\",\"o\":\"completed\",\"w\":\"floor:01234567\",\"s\":%lld,\"e\":%lld}",
              claimed->len, claimed->str, digit, entry->str, ms, ms);
  add(text, length);
}

/* Reports of one kind, by stream as the claims came: digit, then all entry ids, all ids, all records. */
static void add_stream(redisReply *rows) {
  size_t length;
  redisReply **row = rows->element;
  const char *digit = row[0]->str, *number = keep(&length, "%ld", (long)(rows->elements / 2));
  add(digit, 1), add_text("completed"), add_text(""), add_text(type), add(number, length);
  for (size_t i = 1; i < rows->elements; i += 2) add(row[i]->str, row[i]->len);
  for (size_t i = 2; i < rows->elements; i += 2) add(id_of(row[i]), 36);
  for (size_t i = 1; i < rows->elements; i += 2) add_record(digit, row[i], row[i + 1]);
}

static void send_cycle(const char *batch, redisReply *claims) {
  begin();
  add_text("floor:01234567"), add_text(batch), add_text("rs3210"), add_text(""), add_text("0"), add_text("86400"), add_text("10000");
  for (size_t s = 0; claims && s < claims->elements; s++) add_stream(claims->element[s]);
  finish();
}

/* How many reports each call that is out carries, oldest first. */
static long carried[2];
static int oldest, waiting;

static void go(const char *batch, redisReply *claims) {
  long number = 0;
  for (size_t s = 0; claims && s < claims->elements; s++) number += (long)claims->element[s]->elements / 2;
  carried[(oldest + waiting++) % 2] = number;
  send_cycle(batch, claims);
}

static void drain(const char *batch, int out, long total) {
  long reported = 0;
  while (waiting < out) go(batch, NULL);
  while (waiting > 0) {
    redisReply *reply = answer(), *claims;
    if (reply->elements != 5 || reply->element[0]->elements || reply->element[1]->integer) fail("a report was not accepted");
    reported += carried[oldest];
    oldest = (oldest + 1) % 2, waiting--;
    claims = reply->element[3];
    if (claims->elements) go(batch, claims);
    freeReplyObject(reply);
  }
  if (reported != total) fail("%ld tasks were drained, not %ld", reported, total);
}

/* -- one task at a time: who submits, and who waits for the marker, each a process of its own */

static double *moments;

static void pace(int gap_ms, long total) {
  struct timespec gap = {gap_ms / 1000, gap_ms % 1000 * 1000000L};
  for (long i = 0; i < total; i++) {
    nanosleep(&gap, NULL);
    moments[i] = seconds(CLOCK_MONOTONIC);
    send_submit(i, 1);
    take_submitted(1);
  }
}

static redisReply *cycle(const char *batch, redisReply *claims) {
  send_cycle(batch, claims);
  return answer();
}

static void pop_marker(const char *prefix) {
  if (redisAppendCommand(redis, "BLPOP %swake 30", prefix) != REDIS_OK) fail("%s", redis->errstr);
  redisReply *reply = answer();
  if (reply->type == REDIS_REPLY_NIL) fail("nothing came for 30 s");
  freeReplyObject(reply);
}

static void wait_for(const char *batch, const char *prefix, long total) {
  for (long ended = 0; ended < total;) {
    pop_marker(prefix);
    redisReply *reply = cycle(batch, NULL), *claims = reply->element[3];
    double now = seconds(CLOCK_MONOTONIC);
    for (size_t s = 0; s < claims->elements; s++)
      for (size_t i = 1; i < claims->element[s]->elements && ended < total; i += 2) moments[ended++] = now;
    if (claims->elements) freeReplyObject(cycle("0", claims));
    freeReplyObject(reply);
  }
}

/* -- the same tasks by plain commands */

static void command(const char *first, ...) {
  va_list rest;
  used = 0;
  va_start(rest, first);
  for (const char *word = first; word; word = va_arg(rest, const char *)) add_text(word);
  va_end(rest);
  finish();
}

static void answers(long number) {
  while (number-- > 0) freeReplyObject(answer());
}

static void plain_submit(int batch, long total) {
  size_t length;
  type = "noop";
  command("XGROUP", "CREATE", "plain", "g", "0", "MKSTREAM", NULL);
  answers(1);
  for (long sent = 0; sent < total; sent += batch) {
    int count = total - sent < batch ? (int)(total - sent) : batch;
    arena_used = 0;
    for (int i = 0; i < count; i++) command("XADD", "plain", "*", "d", envelope(&length, new_id(&length), sent + i), NULL);
    answers(count);
  }
}

static void plain_end(redisReply *row) {
  size_t length;
  redisReply *fields = row->element[1];
  const char *entry = row->element[0]->str;
  command("XACK", "plain", "g", entry, NULL);
  command("XDEL", "plain", entry, NULL);
  add_record("1", row->element[0], fields->element[1]);
  const char *record = args[used - 1];
  command("SET", keep(&length, "plain:%.36s", id_of(fields->element[1])), record, "EX", "86400", NULL);
}

static void plain_drain(const char *batch, long total) {
  long ended = 0;
  redisReply *claims = NULL, *rows = NULL;
  do {
    arena_used = 0;
    for (size_t i = 0; rows && i < rows->elements; i++) plain_end(rows->element[i]);
    command("XREADGROUP", "GROUP", "g", "floor", "COUNT", batch, "STREAMS", "plain", ">", NULL);
    if (rows) answers(3 * (long)rows->elements), ended += (long)rows->elements, freeReplyObject(claims);
    claims = answer();
    rows = claims->elements ? claims->element[0]->element[1] : NULL;
  } while (rows);
  if (ended != total) fail("%ld tasks were drained, not %ld", ended, total);
}

static void ping(long total) {
  for (long i = 0; i < total; i++) {
    used = 0;
    add_text("PING");
    finish();
    freeReplyObject(answer());
  }
}

int main(int count, char **words) {
  long total;
  int batch, out;
  double wall, cpu;
  if (count < 6) fail("see the top of floor.c for its arguments");
  batch = atoi(words[3]), out = atoi(words[4]), total = atol(words[5]);
  if (batch < 1 || batch > MAX_BATCH || out < 1 || out > 2) fail("BATCH is 1 to 1000, OUT is 1 or 2");
  redis = strchr(words[1], '/') ? redisConnectUnix(words[1]) : redisConnect("127.0.0.1", atoi(words[1]));
  if (!redis || redis->err) fail("%s", redis ? redis->errstr : "no memory");
  if (count > 7) {
    if (count != 9) fail("a script gets one key");
    type = words[6];
    add_text("EVALSHA"), add_text(words[7]), add_text("1"), add_text(words[8]);
    head = used;
  }
  state = (unsigned long long)(seconds(CLOCK_REALTIME) * 1e9) | 1;
  moments = calloc((size_t)total, sizeof *moments);
  if (!moments) fail("no memory");
  wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
  if (!strcmp(words[2], "ping")) ping(total);
  else if (!strcmp(words[2], "submit") && head) submit(batch, out, total);
  else if (!strcmp(words[2], "drain") && head) drain(words[3], out, total);
  else if (!strcmp(words[2], "pace") && head) pace(batch, total);
  else if (!strcmp(words[2], "wait") && head) wait_for(words[3], words[8], total);
  else if (!strcmp(words[2], "plain-submit")) plain_submit(batch, total);
  else if (!strcmp(words[2], "plain-drain")) plain_drain(words[3], total);
  else fail("the mode is ping, submit, drain, pace, wait, plain-submit or plain-drain");
  printf("{\"tasks\": %ld, \"wall_s\": %.9f, \"cpu_s\": %.9f", total, seconds(CLOCK_MONOTONIC) - wall, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
  for (long i = 0; i < total && moments[0] > 0; i++) printf("%s%.0f", i ? ", " : ", \"at_ns\": [", moments[i] * 1e9);
  puts(moments[0] > 0 ? "]}" : "}");
  return 0;
}
