import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;
import java.time.Duration;

/**
 * Java's own client with its defaults, so each first request offers HTTP/2.
 *
 * <p>Arguments: method, address and the file of the body ({@code -} for none) of each request. Prints status
 * and answer, one line each.
 */
public class AskDoors {
    public static void main(String[] args) throws Exception {
        for (int i = 0; i + 2 < args.length; i += 3) {
            var body = args[i + 2].equals("-") ? BodyPublishers.noBody() : BodyPublishers.ofFile(Path.of(args[i + 2]));
            var request = HttpRequest.newBuilder(URI.create(args[i + 1]))
                    .method(args[i], body)
                    .timeout(Duration.ofSeconds(30))
                    .build();
            // A client of its own each time: a connection makes its offer once.
            var answer = HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body().replace('\n', ' '));
        }
    }
}
