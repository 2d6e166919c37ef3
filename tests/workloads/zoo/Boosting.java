import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;

/** Boosted stumps: each feature is searched by a task of a thread pool, and enough garbage is made to be collected. */
public class Boosting {
    record Stump(int feature, double threshold, double left, double right, double error) {}

    static Stump search(double[][] rows, double[] residuals, int feature) {
        List<Integer> order = new ArrayList<>(IntStream.range(0, rows.length).boxed().toList());
        order.sort(Comparator.comparingDouble(i -> rows[i][feature]));
        double total = 0;
        for (double residual : residuals) total += residual;
        Stump best = null;
        double left = 0;
        for (int n = 1; n < rows.length; n++) {
            left += residuals[order.get(n - 1)];
            double right = total - left;
            double error = -(left * left / n + right * right / (rows.length - n));
            if (best == null || error < best.error) {
                double threshold = rows[order.get(n)][feature];
                best = new Stump(feature, threshold, left / n, right / (rows.length - n), error);
            }
        }
        return best;
    }

    public static void main(String[] args) throws Exception {
        int steps = Integer.parseInt(args[0]);
        long rest = (long) (1000 * Double.parseDouble(System.getenv().getOrDefault("ZOO_REST", "0")));
        Random random = new Random(4);
        double[][] rows = new double[4000][6];
        double[] residuals = new double[rows.length];
        for (int i = 0; i < rows.length; i++) {
            for (int f = 0; f < rows[i].length; f++) rows[i][f] = random.nextDouble();
            residuals[i] = Math.sin(6 * rows[i][0]) + rows[i][1] * rows[i][2] + 0.1 * random.nextGaussian();
        }
        ExecutorService pool = Executors.newFixedThreadPool(3);
        StringBuilder model = new StringBuilder();
        for (int step = 0; step < steps; step++) {
            List<Future<Stump>> found = new ArrayList<>();
            for (int f = 0; f < rows[0].length; f++) {
                int feature = f;
                found.add(pool.submit(() -> search(rows, residuals, feature)));
            }
            Stump best = null;
            for (Future<Stump> one : found) {
                if (best == null || one.get().error < best.error) best = one.get();
            }
            double loss = 0;
            for (int i = 0; i < rows.length; i++) {
                residuals[i] -= 0.3 * (rows[i][best.feature] < best.threshold ? best.left : best.right);
                loss += residuals[i] * residuals[i] / rows.length;
            }
            model.append(best).append('\n');
            append("metrics.jsonl", String.format(Locale.ROOT, "{\"step\": %d, \"loss\": %s}%n", step, loss));
            System.out.printf(Locale.ROOT, "round %d: %.6f%n", step, loss);
            if (!Files.exists(Path.of("../hurry"))) Thread.sleep(rest);
        }
        pool.shutdown();
        append("model.txt", model.toString());
    }

    static void append(String path, String text) throws IOException {
        Files.writeString(Path.of(path), text, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }
}
