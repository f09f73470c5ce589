// Publishes one booking over HTTP: Publish.java [ID]. Answer on standard output; exit 0 stored, 65 refused, 69 not reached in five attempts.
import java.net.URI;
import java.net.http.*;
import java.time.Duration;

class Publish {
    /** Status 0 is no answer; after is the pause that is asked for, in seconds. */
    record Answer(int status, int after, String said) {}

    static Answer attempt(HttpRequest request) throws InterruptedException {
        try {
            var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
            var after = answer.headers().firstValue("Retry-After").filter(text -> text.matches("\\d{1,9}")).map(Integer::valueOf).orElse(0);
            return new Answer(answer.statusCode(), after, answer.body());
        } catch (java.io.IOException error) {
            return new Answer(0, 0, error.toString());
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        // One id and the same bytes for every attempt: so it is stored once.
        var id = arguments.length > 0 ? arguments[0] : "bk-java-" + System.currentTimeMillis() + "-" + ProcessHandle.current().pid();
        var event = """
            {"id":"%s","type":"booking:new","room":"bookings","audience":"staff","data":{"id":"%s","customer":"Elif Kaya","country":"TR",
             "category":"tour","title":"Bosphorus cruise at sunset","duration":"3 hours","amount":4250.50,"currency":"TRY"}}""".formatted(id, id);
        var request = HttpRequest.newBuilder(URI.create(System.getenv("ROOMCAST_INGEST") + "/v1/events"))
            .header("Authorization", "Bearer " + System.getenv("ROOMCAST_TOKEN")).header("Content-Type", "application/json")
            .version(HttpClient.Version.HTTP_1_1).timeout(Duration.ofSeconds(10)).POST(HttpRequest.BodyPublishers.ofString(event)).build();
        for (int pause = 1; ; pause *= 2) {
            var answer = attempt(request);
            int status = answer.status();
            boolean last = status > 0 && status < 500 && status != 408 && status != 429;
            // Who shall wait for longer than this comes back later: after two minutes a repeat is a new event.
            if (last || pause == 16 || answer.after() > 15) {
                (status > 0 ? System.out : System.err).println(answer.said());
                System.exit(status == 200 ? 0 : last ? 65 : 69);
            }
            Thread.sleep(Duration.ofSeconds(Math.max(pause, answer.after())).toMillis());
        }
    }
}
