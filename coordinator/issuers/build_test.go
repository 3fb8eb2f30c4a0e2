package issuers

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/settings"
)

// Every setting of a kind changes what its connector is made with, and every field
// that a connector has is set by one.
func TestEverySettingReachesItsConnector(t *testing.T) {
	const validity = 48 * time.Hour
	kinds := map[string]struct {
		section any // pointer to one
		config  func() any
	}{}
	digicertSection, entrustSection := new(config.DigiCert), new(config.Entrust)
	globalsignSection, sectigoSection, vaultSection := new(config.GlobalSign), &config.Sectigo{Terms: []int{90}}, new(config.Vault)
	add := func(kind string, section any, config func() any) {
		kinds[kind] = struct {
			section any
			config  func() any
		}{section, config}
	}
	validities := validity
	add(config.KindDigiCert, digicertSection, func() any { return digicertConfig(digicertSection, validities) })
	add(config.KindEntrust, entrustSection, func() any { return entrustConfig(entrustSection, validities) })
	add(config.KindGlobalSign, globalsignSection, func() any { return globalsignConfig(globalsignSection, validities) })
	add(config.KindSectigo, sectigoSection, func() any { return sectigoConfig(sectigoSection, validities) })
	add(config.KindVault, vaultSection, func() any { return vaultConfig(vaultSection, validities) })

	// What is not of the section alone: files that are read, and the tests' seams.
	elsewhere := map[string]bool{"Roots": true, "Now": true, "Dial": true, "Certificate": true}
	for kind, k := range kinds {
		reached := map[string]bool{}
		before := shown(t, k.config())
		differing := func(setting string) {
			found := false
			for field, text := range shown(t, k.config()) {
				if text != before[field] {
					found, reached[field] = true, true
				}
			}
			assert.True(t, found, "%s: %s changes nothing", kind, setting)
		}
		eachField(reflect.ValueOf(k.section).Elem(), func(name string, v reflect.Value) {
			if name == "CAFile" || name == "Certificate" || name == "Key" {
				return
			}
			kept := reflect.New(v.Type()).Elem()
			kept.Set(v)
			other(t, v)
			differing(name)
			v.Set(kept)
		})
		if kind != config.KindSectigo { // which has terms
			validities = 72 * time.Hour
			differing("validity")
			validities = validity
		}
		typ := reflect.TypeOf(k.config())
		for i := range typ.NumField() {
			if name := typ.Field(i).Name; !elsewhere[name] {
				assert.True(t, reached[name], "%s: no setting reaches %s", kind, name)
			}
		}
	}
}

func eachField(v reflect.Value, visit func(string, reflect.Value)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous {
			eachField(v.Field(i), visit)
			continue
		}
		visit(field.Name, v.Field(i))
	}
}

// other gives a setting a value that it did not have.
func other(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v := v.Addr().Interface().(type) {
	case *string:
		*v += "other"
	case *bool:
		*v = !*v
	case *int64:
		*v += 7
	case *time.Duration:
		*v += time.Hour
	case *settings.Secret:
		*v = settings.NewSecret("other")
	case *[]string:
		*v = append(*v, "other")
	case *[]int:
		*v = append(*v, 7)
	case *map[string]string:
		*v = map[string]string{"other": "value"}
	case *map[string]connector.State:
		*v = map[string]connector.State{"other": connector.Pending}
	default:
		t.Fatalf("a setting of type %T", v)
	}
}

// shown are the fields of a connector's configuration as texts.
func shown(t *testing.T, c any) map[string]string {
	t.Helper()
	fields := map[string]string{}
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		switch field := v.Field(i).Interface().(type) {
		case func() (string, error):
			if field == nil {
				continue
			}
			text, err := field()
			require.NoError(t, err)
			fields[name] = text
		default:
			if v.Field(i).Kind() != reflect.Func {
				fields[name] = fmt.Sprintf("%#v", field)
			}
		}
	}
	return fields
}

func TestTermOfAValidity(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		terms    []int
		validity time.Duration
		want     []int
	}{
		{[]int{30, 90, 365}, 0, []int{30, 90, 365}},
		{[]int{30, 90, 365}, 90 * day, []int{90, 30, 365}},
		{[]int{30, 90, 365}, 100 * day, []int{90, 30, 365}},
		{[]int{365, 90, 30}, 10 * day, []int{30, 365, 90}},
		{[]int{365}, 10 * day, []int{365}},
		{[]int{365, 90}, 400 * day, []int{365, 90}},
	} {
		before := append([]int(nil), c.terms...)
		assert.Equal(t, c.want, termsFor(c.terms, c.validity), "%v for %v", c.terms, c.validity)
		assert.Equal(t, before, c.terms)
	}
}

func TestValidityOfOrdersThatDoNotSay(t *testing.T) {
	const day = 24 * time.Hour
	dc, other := &config.DigiCert{}, &config.GlobalSign{}
	for _, c := range []struct {
		section config.Issuer
		want    time.Duration
	}{
		{config.Issuer{DigiCert: dc}, 0},
		{config.Issuer{DigiCert: dc, Validity: 30 * day, MaxValidity: 60 * day}, 30 * day},
		{config.Issuer{DigiCert: dc, MaxValidity: 60 * day}, 60 * day},
		{config.Issuer{DigiCert: dc, MaxValidity: 300 * day}, 0},
		{config.Issuer{GlobalSign: other}, 0},
		{config.Issuer{GlobalSign: other, MaxValidity: 300 * day}, 300 * day},
		{config.Issuer{GlobalSign: other, Validity: day}, day},
	} {
		assert.Equal(t, c.want, validity(&c.section), "%+v", c.section)
	}
}
