// Visits HTTPS sites on loopback with Go's crypto/tls. Argument: the one authority that it trusts (PEM).
//
// A line of standard input is a target, `PORT NAME TLSv1.2|TLSv1.3`; a line of standard output what was seen there: the answer, or what failed.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"strings"
)

var versions = map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}

func visit(authority *x509.CertPool, port, name, version string) (string, error) {
	connection, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{
		RootCAs:    authority,
		ServerName: name,
		MinVersion: versions[version],
		MaxVersion: versions[version],
	})
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if _, err := fmt.Fprintf(connection, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", name); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(connection)
	return string(answer), err
}

func main() {
	pem, err := os.ReadFile(os.Args[1])
	authority := x509.NewCertPool()
	if err != nil || !authority.AppendCertsFromPEM(pem) {
		fmt.Fprintln(os.Stderr, "no authority in", os.Args[1], err)
		os.Exit(1)
	}
	targets := bufio.NewScanner(os.Stdin)
	for targets.Scan() {
		target := strings.Fields(targets.Text())
		seen, err := visit(authority, target[0], target[1], target[2])
		if err != nil {
			seen = err.Error()
		}
		fmt.Println(strings.Join(strings.Fields(seen), " "))
	}
}
