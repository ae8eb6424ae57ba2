// Runs Java's HttpClient against a provider, or against Callgate in front of it: `java Drive.java NAME STEP...`. Has the
// same steps and prints the same lines as drive.py.

import java.io.ByteArrayInputStream;
import java.net.Proxy;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.List;

public class Drive {
    static final String BASE = System.getenv("BASE");
    static final int ROUNDS = Integer.parseInt(System.getenv().getOrDefault("ROUNDS", "1"));
    static final byte[] FILE = new byte[3 * 1024 * 1024];
    static final String JSON = "application/json";
    static final List<Double> seconds = new ArrayList<>();
    // Over plain HTTP, HTTP/2 would begin with an upgrade of the first request, which no proxy passes on.
    static final HttpClient.Version VERSION = BASE.startsWith("https:") ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1;
    static final HttpClient client = HttpClient.newBuilder().version(VERSION).followRedirects(HttpClient.Redirect.NORMAL).build();

    public static void main(String[] args) throws Exception {
        for (int n = 0; n < FILE.length; n++) FILE[n] = (byte) n;
        for (String step : List.of(args).subList(1, args.length)) {
            control("/step/" + step);
            seconds.clear();
            String outcome;
            try {
                outcome = "\"got\": " + quoted(run(step));
            } catch (Exception error) {
                outcome = "\"error\": " + quoted(error + " " + error.getCause());
            }
            System.out.println("{\"step\": \"" + step + "\", \"seconds\": " + seconds + ", " + outcome + "}");
        }
        System.exit(0);
    }

    static String run(String step) throws Exception {
        switch (step) {
            case "plain":
                return send("GET", "/v1/models?page=2&name=a%20b+c&sign=%2F%3d", null)
                    + send("POST", "/v1/echo", "{\"text\": \"Grüße\", \"number\": 1.50, \"list\": [1, 2]}") + send("PUT", "/v1/echo", "{}");
            case "stream":
                return stream();
            case "upload":
                return send("POST", "/v1/upload", "application/octet-stream", BodyPublishers.ofByteArray(FILE))
                    + send("POST", "/v1/upload", "application/octet-stream", BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(FILE)));
            case "poll":
                while (!send("GET", "/v1/jobs/job1", null).contains("\"succeeded\"")) {}
                return "done";
            case "redirect":
                return send("GET", "/v1/moved", null) + send("POST", "/v1/moved", "{\"text\": \"again\"}");
            case "callback":
                return send("POST", "/v1/jobs", "{\"input\": \"Grüße\"}");
            default:
                throw new IllegalArgumentException(step);
        }
    }

    static String send(String method, String path, String body) throws Exception {
        return send(method, path, body == null ? null : JSON, body == null ? BodyPublishers.noBody() : BodyPublishers.ofString(body));
    }

    static String send(String method, String path, String type, BodyPublisher body) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(BASE + path)).method(method, body);
        if (type != null) request.header("content-type", type);
        var answer = client.send(request.build(), BodyHandlers.ofString());
        return answer.statusCode() + " " + answer.body() + "\n";
    }

    static String stream() throws Exception {
        List<String> got = null;
        for (int round = 0; round < ROUNDS; round++) {
            List<String> events = got = new ArrayList<>();
            long began = System.nanoTime();
            var body = BodyPublishers.ofString("{\"stream\": true, \"messages\": [{\"role\": \"user\", \"content\": \"Grüße\"}]}");
            var request = HttpRequest.newBuilder(URI.create(BASE + "/v1/chat/completions")).header("content-type", JSON).POST(body).build();
            client.send(request, BodyHandlers.ofLines()).body().filter((line) -> line.startsWith("data:")).forEach((line) -> {
                if (events.isEmpty()) {
                    seconds.add((System.nanoTime() - began) / 1e9);
                    control("/seen");
                }
                events.add(line);
            });
        }
        return got.toString();
    }

    static void control(String path) {
        try {
            URL url = new URL("http://127.0.0.1:" + System.getenv("CONTROL") + path);
            url.openConnection(Proxy.NO_PROXY).getInputStream().readAllBytes();
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    static String quoted(String text) {
        return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n") + "\"";
    }
}
