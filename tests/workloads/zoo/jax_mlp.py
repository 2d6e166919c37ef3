"""Handwritten digits with JAX, Flax and Optax; the step is compiled, the keys are split as one goes."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.serialization import to_bytes
from progress import report
from sklearn.datasets import load_digits

STEPS = 100


class Network(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array, training: bool) -> jax.Array:
        hidden = nn.relu(nn.Dense(128)(images))
        hidden = nn.Dropout(0.2, deterministic=not training)(hidden)
        return nn.Dense(10)(hidden)


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    network, schedule = Network(), optax.cosine_decay_schedule(1e-2, STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    key = jax.random.key(0)
    weights = network.init(key, images[:1], training=False)
    state = optimizer.init(weights)

    @jax.jit
    def train(weights, state, key, batch, targets):
        def loss_of(weights):
            outputs = network.apply(weights, batch, training=True, rngs={"dropout": key})
            return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()

        loss, gradients = jax.value_and_grad(loss_of)(weights)
        updates, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state, loss

    order = np.random.default_rng(0)
    for step in range(STEPS):
        key, own = jax.random.split(key)
        chosen = order.integers(0, 1500, 64)
        weights, state, loss = train(weights, state, own, images[chosen], labels[chosen])
        report(step, loss=float(loss))
        if step % 20 == 19:
            print(f"step {step}: loss {float(loss):.4f}")
    guesses = jnp.argmax(network.apply(weights, images[1500:], training=False), axis=1)
    print(f"accuracy {float((guesses == labels[1500:]).mean()):.4f}")
    np.savetxt("predictions.txt", np.asarray(guesses), fmt="%d")
    with open("weights.msgpack", "wb") as file:
        file.write(to_bytes(weights))


if __name__ == "__main__":
    main()
