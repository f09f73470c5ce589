// Publishes one booking over HTTP. Answer on standard output; exit 0 stored, 65 refused, 69 not reached.
import java.net.URI;
import java.net.http.*;
import java.time.Duration;

class Publish {
    public static void main(String[] arguments) throws InterruptedException {
        var id = "bk-java-" + System.currentTimeMillis() + "-" + ProcessHandle.current().pid();
        var event = """
            {"id":"%s","type":"booking:new","room":"bookings","audience":"staff","data":{"id":"%s","customer":"Elif Kaya","country":"TR",
             "category":"tour","title":"Bosphorus cruise at sunset","duration":"3 hours","amount":4250.50,"currency":"TRY"}}""".formatted(id, id);
        try {
            var request = HttpRequest.newBuilder(URI.create(System.getenv("ROOMCAST_INGEST") + "/v1/events"))
                .header("Authorization", "Bearer " + System.getenv("ROOMCAST_TOKEN")).header("Content-Type", "application/json")
                .version(HttpClient.Version.HTTP_1_1).timeout(Duration.ofSeconds(10)).POST(HttpRequest.BodyPublishers.ofString(event)).build();
            var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.body());
            System.exit(answer.statusCode() == 200 ? 0 : answer.statusCode() >= 500 || answer.statusCode() == 429 ? 69 : 65);
        } catch (java.io.IOException | IllegalArgumentException error) {
            System.err.println(error);
            System.exit(69);
        }
    }
}
