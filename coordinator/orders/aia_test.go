package orders

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A certificate that is not proved yet has the coordinator ask no metadata service.
func TestNoIssuerIsFetchedFromTheLink(t *testing.T) {
	// Not through httpGet: a proxy of the environment would be dialled instead.
	dial := issuerClient.Transport.(*http.Transport).DialContext
	for _, address := range []string{"169.254.169.254:80", "[fe80::1]:80", "[::ffff:169.254.169.254]:80", "0.0.0.0:1"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := dial(ctx, "tcp", address)
		cancel()
		assert.ErrorContains(t, err, "an address at which no issuer is fetched", address)
	}
}
