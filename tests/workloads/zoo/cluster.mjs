// Random search in Node.js: forked processes evaluate over their IPC channels, a server counts on a unix socket.
import { fork } from "node:child_process";
import { appendFileSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as rest } from "node:timers/promises";

function error([a, b, c]) {
  let sum = 0;
  for (let i = 0; i < 2000; i++) {
    const x = i / 200;
    sum += (a * Math.sin(b * x) + c - (1.7 * Math.sin(0.8 * x) + 0.4)) ** 2;
  }
  return sum / 2000;
}

if (process.argv[2] === "worker") {
  const counter = createConnection(process.argv[3]);
  process.on("message", ({ id, candidate }) => {
    counter.write(".");
    process.send({ id, loss: error(candidate) });
  });
  process.on("disconnect", () => counter.end());
} else {
  const steps = Number(process.argv[2]), pause = 1000 * Number(process.env.ZOO_REST ?? 0);
  const directory = mkdtempSync(join(tmpdir(), "search-")), path = join(directory, "counter.sock");
  let evaluated = 0;
  const server = createServer((client) => client.on("data", (dots) => (evaluated += dots.length))).listen(path);
  await new Promise((resolve) => server.once("listening", resolve));
  const workers = [0, 1, 2].map(() => fork(new URL(import.meta.url).pathname, ["worker", path]));
  const waiting = new Map();
  for (const worker of workers) worker.on("message", ({ id, loss }) => waiting.get(id)(loss));
  let seed = 7, best = [1, 1, 0], least = error(best);
  const random = () => ((seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff), seed / 0x7fffffff - 0.5);
  for (let step = 0; step < steps; step++) {
    const candidates = Array.from({ length: 9 }, () => best.map((value) => value + 0.3 * random()));
    const losses = await Promise.all(
      candidates.map((candidate, n) => {
        workers[n % workers.length].send({ id: `${step}-${n}`, candidate });
        return new Promise((resolve) => waiting.set(`${step}-${n}`, resolve));
      }),
    );
    waiting.clear();
    losses.forEach((loss, n) => {
      if (loss < least) [best, least] = [candidates[n], loss];
    });
    appendFileSync("metrics.jsonl", JSON.stringify({ step, loss: least }) + "\n");
    if (!existsSync("../hurry")) await rest(pause);
  }
  const ended = workers.map((worker) => new Promise((resolve) => worker.once("exit", resolve)));
  for (const worker of workers) worker.disconnect();
  console.log("workers ended with", ...(await Promise.all(ended)));
  await new Promise((resolve) => server.close(resolve));
  console.log(`${evaluated} evaluated, error ${least}`);
  rmSync(directory, { recursive: true });
  writeFileSync("best.json", JSON.stringify(best));
}
