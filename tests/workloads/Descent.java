import java.io.FileWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Random;

/** Stochastic gradient descent on the JVM: a garbage collector and compiler threads under CRIU, one line a step. */
public class Descent {
    public static void main(String[] args) throws IOException, InterruptedException {
        int steps = Integer.parseInt(args[0]);
        long delayMillis = Long.parseLong(args[1]);
        Random random = new Random(1);
        double[] weights = new double[64];
        try (FileWriter metrics = new FileWriter("metrics.jsonl", true)) {
            for (int step = 0; step < steps; step++) {
                double loss = 0;
                for (int sample = 0; sample < 200; sample++) {
                    double[] features = new double[weights.length];
                    double error = 0;
                    for (int i = 0; i < weights.length; i++) {
                        features[i] = random.nextGaussian();
                        error += (weights[i] - Math.sin(i)) * features[i];
                    }
                    for (int i = 0; i < weights.length; i++) {
                        weights[i] -= 0.0005 * error * features[i];
                    }
                    loss += error * error;
                }
                metrics.write(String.format(Locale.ROOT, "{\"step\": %d, \"loss\": %s}%n", step, loss));
                metrics.flush();
                System.out.println("step " + step);
                if (!Files.exists(Path.of("../hurry"))) { // see rest.py
                    Thread.sleep(delayMillis);
                }
            }
        }
        try (FileWriter out = new FileWriter("weights.txt")) {
            for (double weight : weights) {
                out.write(weight + "\n");
            }
        }
    }
}
