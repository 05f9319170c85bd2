# The OpenSSL 3 provider, build/hsmgate.so. Needs libssl-dev (OpenSSL 3.0 or later): the provider links libcrypto of the machine, which
# is the one that the TLS servers use.
#
#   make provider         build/hsmgate.so
#   make provider-asan    build/provider-asan/hsmgate.so, under AddressSanitizer and UndefinedBehaviorSanitizer

PROVIDER := $(ROOT)/native/provider
PROVIDER_SOURCES := $(wildcard $(PROVIDER)/*.c)
PROVIDER_WARNINGS := -Wall -Wextra -Werror -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
PROVIDER_COMMON := -std=c11 -D_GNU_SOURCE -DOPENSSL_API_COMPAT=30000 -DOPENSSL_NO_DEPRECATED -g1 -fPIC -pthread -fvisibility=hidden \
	$(PROVIDER_WARNINGS)
# nodelete: Apache unloads its modules and loads them again. Only what the map names is visible.
PROVIDER_LINK := $(LINK) -Wl,-z,nodelete -Wl,--version-script=$(PROVIDER)/provider.map -Wl,--no-undefined

.PHONY: provider provider-asan
provider: $(BUILD)/hsmgate.so
provider-asan: $(BUILD)/provider-asan/hsmgate.so

$(BUILD)/hsmgate.so: $(PROVIDER_SOURCES:$(PROVIDER)/%.c=$(BUILD)/provider/%.o) $(PROVIDER)/provider.map
	$(CC) -shared $(PROVIDER_LINK) -o $@.new $(filter %.o,$^) -lcrypto
	mv -f $@.new $@

$(BUILD)/provider/%.o: $(PROVIDER)/%.c
	@mkdir -p $(@D)
	$(CC) $(PROVIDER_COMMON) -O2 $(HARDENING) -MMD -MP -c -o $@ $<

$(BUILD)/provider-asan/hsmgate.so: $(PROVIDER_SOURCES:$(PROVIDER)/%.c=$(BUILD)/provider-asan/%.o) $(PROVIDER)/provider.map
	$(CC) -shared $(ASAN) $(filter-out -Wl$(comma)--no-undefined,$(PROVIDER_LINK)) -o $@ $(filter %.o,$^) -lcrypto

$(BUILD)/provider-asan/%.o: $(PROVIDER)/%.c
	@mkdir -p $(@D)
	$(CC) $(PROVIDER_COMMON) $(ASAN) -MMD -MP -c -o $@ $<

comma := ,
-include $(wildcard $(BUILD)/provider/*.d $(BUILD)/provider-asan/*.d)
