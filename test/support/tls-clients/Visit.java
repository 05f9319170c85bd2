import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * Visits HTTPS sites on loopback with Java's own TLS (SunJSSE). Argument: the one authority that it trusts (PEM).
 *
 * <p>A line of standard input is a target, {@code PORT NAME TLSv1.2|TLSv1.3}; a line of standard output what was seen there: the answer, or what
 * failed.
 */
public class Visit {
  public static void main(String[] arguments) throws IOException, GeneralSecurityException {
    var authority = KeyStore.getInstance(KeyStore.getDefaultType());
    authority.load(null, null);
    try (var pem = new FileInputStream(arguments[0])) {
      authority.setCertificateEntry("authority", CertificateFactory.getInstance("X.509").generateCertificate(pem));
    }
    var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(authority);

    var targets = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (var line = targets.readLine(); line != null; line = targets.readLine()) {
      var target = line.split(" ");
      String seen;
      try {
        // of its own, so that no session is resumed
        var context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        seen = visit(context, Integer.parseInt(target[0]), target[1], target[2]);
      } catch (IOException failure) {
        seen = failure.toString();
      }
      System.out.println(seen.replaceAll("\\s+", " "));
    }
  }

  private static String visit(SSLContext context, int port, String name, String version) throws IOException {
    var plain = new Socket("127.0.0.1", port);
    try (var socket = (SSLSocket) context.getSocketFactory().createSocket(plain, name, port, true)) {
      var parameters = socket.getSSLParameters();
      parameters.setEndpointIdentificationAlgorithm("HTTPS");
      parameters.setProtocols(new String[] {version});
      socket.setSSLParameters(parameters);
      var request = "GET / HTTP/1.0\r\nHost: " + name + "\r\n\r\n";
      socket.getOutputStream().write(request.getBytes(StandardCharsets.US_ASCII));
      return new String(socket.getInputStream().readAllBytes(), StandardCharsets.US_ASCII);
    }
  }
}
