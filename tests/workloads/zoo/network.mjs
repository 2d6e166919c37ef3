// A two-layer network in JavaScript; a worker thread makes the batches, in memory that both share.
import { appendFileSync, createWriteStream, existsSync, writeFileSync } from "node:fs";
import { setTimeout as rest } from "node:timers/promises";
import { Worker, isMainThread, workerData, parentPort } from "node:worker_threads";

const INPUTS = 6, HIDDEN = 24, BATCH = 128;

function generator(seed) {
  // mulberry32
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

if (!isMainThread) {
  const random = generator(2);
  parentPort.on("message", () => {
    const batch = workerData;
    for (let i = 0; i < BATCH; i++) {
      const row = batch.subarray(i * (INPUTS + 1), (i + 1) * (INPUTS + 1));
      for (let j = 0; j < INPUTS; j++) row[j] = 2 * random() - 1;
      row[INPUTS] = Math.sin(3 * row[0]) + row[1] * row[2] - row[3] * row[3];
    }
    parentPort.postMessage("ready");
  });
} else {
  const steps = Number(process.argv[2]), pause = 1000 * Number(process.env.ZOO_REST ?? 0);
  const batch = new Float64Array(new SharedArrayBuffer(8 * BATCH * (INPUTS + 1)));
  const worker = new Worker(new URL(import.meta.url), { workerData: batch });
  const random = generator(1);
  const first = Array.from({ length: HIDDEN }, () => Array.from({ length: INPUTS + 1 }, () => random() - 0.5));
  const second = Array.from({ length: HIDDEN }, () => random() - 0.5);
  const log = createWriteStream("train.log");
  for (let step = 0; step < steps; step++) {
    const made = new Promise((resolve) => worker.once("message", resolve));
    worker.postMessage("next");
    await made;
    let loss = 0;
    for (let i = 0; i < BATCH; i++) {
      const row = [...batch.subarray(i * (INPUTS + 1), (i + 1) * (INPUTS + 1))];
      const wanted = row[INPUTS];
      row[INPUTS] = 1; // the bias
      const hidden = first.map((weights) => Math.tanh(weights.reduce((sum, w, j) => sum + w * row[j], 0)));
      const error = hidden.reduce((sum, h, k) => sum + h * second[k], 0) - wanted;
      loss += (error * error) / BATCH;
      for (let k = 0; k < HIDDEN; k++) {
        const slope = 0.05 * error * second[k] * (1 - hidden[k] * hidden[k]);
        second[k] -= 0.05 * error * hidden[k];
        for (let j = 0; j <= INPUTS; j++) first[k][j] -= slope * row[j];
      }
    }
    log.write(`step ${step} loss ${loss}\n`);
    appendFileSync("metrics.jsonl", JSON.stringify({ step, loss }) + "\n");
    console.log(`step ${step} loss ${loss.toFixed(6)}`);
    if (!existsSync("../hurry")) await rest(pause);
  }
  await worker.terminate();
  log.end();
  writeFileSync("weights.json", JSON.stringify({ first, second }));
}
