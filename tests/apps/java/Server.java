import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.Executors;

/** The sample app in Java: nothing but the JDK. tests/apps/README.md says what it answers. */
public final class Server {
    /** Longer than any request of a test takes. */
    private static final int DRAIN_SECONDS = 2;
    private static final Map<String, String> ENV = System.getenv();

    public static void main(String[] arguments) throws IOException {
        String version = Files.readString(Path.of("version")).strip();
        String release = ENV.getOrDefault("TEMPS_RELEASE", "unknown");
        int port = Integer.parseInt(ENV.getOrDefault("PORT", "8080"));
        InetSocketAddress address = new InetSocketAddress(ENV.getOrDefault("HOST", "127.0.0.1"), port);
        HttpServer server = HttpServer.create(address, 1024);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", exchange -> answer(exchange, release, version));
        // On SIGTERM: no new request is taken, and those in flight are finished.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(DRAIN_SECONDS)));
        server.start();
        System.out.println("java " + Runtime.version() + " listens on " + address);
    }

    private static void answer(HttpExchange exchange, String release, String version) throws IOException {
        try (exchange) {
            long pid = ProcessHandle.current().pid();
            String facts = "{\"release\": \"%s\", \"version\": \"%s\", \"pid\": %d}\n".formatted(release, version, pid);
            byte[] body = facts.getBytes(StandardCharsets.UTF_8);
            exchange.getResponseHeaders().set("Content-Type", "application/json");
            exchange.getResponseHeaders().set("X-Release", release);
            exchange.getResponseHeaders().set("X-Version", version);
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
        }
    }
}
